import type { Operation } from '../faults.ts'
import type { Hosts } from '../world.ts'
import type { Handler } from './exchange.ts'

export interface Handlers {
  discovery: Handler
  cloudController: Handler
  uaa: Handler
  iam: Handler
  tokenApi: Handler
  registryAuth: Handler
  registry: Handler
}

export interface Route {
  host: keyof Hosts
  path: RegExp
  /** Absent: any method; the handler refuses what it does not know. */
  method?: string
  operation: Operation
  handler: keyof Handlers
}

const routes: Route[] = [
  { host: 'api', path: /^\/(v2\/info)?$/, operation: 'info', handler: 'discovery' },
  {
    host: 'api',
    path: /^\/v[23]\/organizations(\/[^/]+)?$/,
    operation: 'organizations',
    handler: 'cloudController',
  },
  {
    host: 'login',
    path: /^\/UAALoginServerWAR\/oauth\/token$/,
    operation: 'login',
    handler: 'uaa',
  },
  { host: 'uaa', path: /^\/oauth\/token$/, operation: 'login', handler: 'uaa' },
  { host: 'iam', path: /^\/(oidc|identity)\/token$/, operation: 'login', handler: 'iam' },
  ...tokenApi('POST', 'mint', ''),
  ...tokenApi('GET', 'list', ''),
  ...tokenApi('GET', 'get', '/[^/]+'),
  ...tokenApi('DELETE', 'revoke', '(/[^/]+)?'),
  { host: 'registry', path: /^\/oauth\/token$/, operation: 'oauth', handler: 'registryAuth' },
  { host: 'registry', path: /^\/v2(\/.*)?$/, operation: 'registry', handler: 'registry' },
]

export function findRoute(host: keyof Hosts, method: string, path: string): Route | undefined {
  return routes.find(
    route =>
      route.host === host &&
      route.path.test(path) &&
      (route.method === undefined || route.method === method),
  )
}

function tokenApi(method: string, operation: Operation, rest: string): Route[] {
  const path = new RegExp(`^/api/v1/tokens${rest}$`)
  return [{ host: 'registry', path, method, operation, handler: 'tokenApi' }]
}

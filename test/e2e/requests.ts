import type { RequestEvent } from '../../sandbox/bluemix/hooks.ts'
import type { ProxiedRequest } from '../../sandbox/fault-proxy.ts'
import type { Replica, Replicas } from '../../sandbox/replicas.ts'

/** Before: the request is not handled yet. After: it is handled, and the response is not sent yet. */
export type Moment = 'before' | 'after'

/** `'drop'`: before, the request is never handled; after, its response is lost. */
export type Listener = (
  request: string,
  moment: Moment,
  replica: Replica,
) => Promise<'drop' | undefined>

export interface Requests {
  /** Sets the one listener for every request of all replicas; undefined: none. */
  hear(listener: Listener | undefined): void
}

/**
 * All that replicas ask of the environment and of the API server, by name: `environment mint`,
 * `PATCH namespaces/NAME/secrets/pullpass-registry`. The environment does not see which of them
 * asks: it is taken for the one that `asks` names.
 */
export function listenToAll(replicas: Replicas, asks: () => Replica | undefined): Requests {
  let current: Listener | undefined
  const listenToEnvironment = (moment: Moment) => async (event: RequestEvent) => {
    const replica = asks()
    return replica && (await current?.(nameOfAsked(event), moment, replica))
  }
  replicas.environment.on('beforeRequest', listenToEnvironment('before'))
  replicas.environment.on('afterRequest', listenToEnvironment('after'))
  for (const replica of replicas.all) {
    const listenToProxy = (moment: Moment) => async (request: ProxiedRequest) => {
      const verdict = await current?.(nameOf(request), moment, replica)
      // An exception prevents the proxy from forwarding the request.
      if (verdict === 'drop') throw new Error('dropped')
    }
    Object.assign(replica.proxy?.hooks ?? {}, {
      before: listenToProxy('before'),
      after: listenToProxy('after'),
    })
  }
  return {
    hear: listener => {
      current = listener
    },
  }
}

export const renewal = 'PUT leases/pullpass'

function nameOfAsked({ operation, method, host, path }: RequestEvent): string {
  return `environment ${operation ?? `${method} ${host}${path}`}`
}

/** Replaces names of namespaces and numbers in queries, which differ from run to run. */
function nameOf({ method, path }: ProxiedRequest): string {
  const { pathname, searchParams } = new URL(path, 'https://apiserver')
  const short = pathname
    .replace(/^\/(api\/v1|apis\/[^/]+\/[^/]+)\//, '')
    .replace(/^namespaces\/pullpass\//, '')
    .replace(/^namespaces\/[^/]+/, 'namespaces/NAME')
  return `${method} ${short}${searchParams.has('watch') ? ' (watch)' : ''}`
}

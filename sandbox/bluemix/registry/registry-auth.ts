import { randomUUID } from 'node:crypto'
import { seconds } from '../clock.ts'
import { signEs256 } from '../jwt.ts'
import {
  type Answer,
  basicCredentials,
  formFields,
  type Handler,
  json,
  type Received,
  unknownName,
} from '../wire/exchange.ts'
import type { World } from '../world.ts'
import type { RegistryTokens } from './registry-tokens.ts'
import { type Access, grantable, parseScopes } from './scope.ts'

const bearerSeconds = 300
const queryNames = ['service', 'scope', 'account', 'client_id', 'offline_token']
const formNames = [
  'grant_type',
  'service',
  'scope',
  'username',
  'password',
  'client_id',
  'access_type',
]

/**
 * `registry/oauth/token` accepts the credential of a pull secret. GET with Basic, or POST with a form and
 * `grant_type=password` (distribution docs/spec/auth; IBM/portieris: helpers/oauth/oauth.go).
 *
 * | user     | password       | may                                                       |
 * |----------|----------------|-----------------------------------------------------------|
 * | `token`  | registry token | pull in its organization's namespace; push where `write`  |
 * | `bearer` | UAA token      | pull and push in the namespaces of all its organizations  |
 *
 * Missing rights are no error: the response grants the rights that exist. Wrong credentials and
 * malformed requests get 401, or 400 as from icr.io. The response has both `token` and
 * `access_token`: containerd reads only the second, other clients the first.
 */
export function createRegistryAuth(
  world: World,
  dependencies: { tokens: RegistryTokens; signer: { key: string; cert: string } },
): Handler {
  return received => {
    const { realmMethods, realmOtherStatus } = world.settings
    if (!realmMethods.some(method => method === received.method)) {
      return json(realmOtherStatus, { errors: [{ code: 'UNSUPPORTED', message: 'not supported' }] })
    }
    const request = received.method === 'POST' ? readForm(received) : readQuery(received)
    if (typeof request === 'string') return malformed(request)
    const access = parseScopes(request.scopes)
    if (!access) return malformed('invalid scope')
    const holder = identify(world, dependencies.tokens, { received, ...request })
    if (!holder) return unauthorized(world)
    world.secrets.add(request.password)
    const token = sign(world, dependencies.signer, { ...holder, access: grantable(access, holder) })
    const issuedAt = new Date().toISOString()
    return json(200, { token, access_token: token, expires_in: bearerSeconds, issued_at: issuedAt })
  }
}

export interface TokenRequest {
  user: string
  password: string
  scopes: string[]
}

function readQuery(received: Received): TokenRequest | string {
  const { query, method } = received
  if (method !== 'GET') return 'method not allowed'
  const unexpected = unknownName(query.keys(), queryNames)
  if (unexpected) return `unknown parameter ${unexpected}`
  if (query.get('service') !== 'registry') return 'service not known'
  const { user, password } = basicCredentials(received) ?? { user: '', password: '' }
  return { user, password, scopes: query.getAll('scope').flatMap(scope => scope.split(' ')) }
}

function readForm(received: Received): TokenRequest | string {
  const form = formFields(received)
  if (!form || received.query.size > 0) return 'malformed form'
  const unexpected = unknownName(form.keys(), formNames)
  if (unexpected) return `unknown parameter ${unexpected}`
  if (form.get('service') !== 'registry') return 'service not known'
  if (form.get('grant_type') !== 'password') return 'grant type not supported'
  const scopes = (form.get('scope') ?? '').split(' ')
  return { user: form.get('username') ?? '', password: form.get('password') ?? '', scopes }
}

interface Holder {
  subject: string
  namespaces: string[]
  push: boolean
}

function identify(
  world: World,
  tokens: RegistryTokens,
  { received, user, password }: TokenRequest & { received: Received },
): Holder | undefined {
  if (user === 'token') {
    const row = tokens.byText(password, received.now)
    return row && { subject: row.id, namespaces: [row.organization.namespace], push: row.write }
  }
  if (user !== 'bearer' || received.fault.accessTokens === 'expired') return undefined
  const claims = world.sessions.verify(password, received.now, 'registry')
  const person = world.directory.userById(claims?.user_id)
  if (!person) return undefined
  const organizations = world.directory.organizationsOf(person)
  return {
    subject: person.name,
    namespaces: organizations.map(({ namespace }) => namespace),
    push: true,
  }
}

/** Uses the machine's clock, not the environment's: the registry that checks it has no other. */
function sign(
  world: World,
  signer: { key: string; cert: string },
  { subject, access }: { subject: string; access: Access[] },
): string {
  const now = seconds(Date.now())
  const life = { exp: now + bearerSeconds, nbf: now - 10, iat: now, jti: randomUUID() }
  const claims = { iss: world.hosts.registry, sub: subject, aud: 'registry', ...life, access }
  const token = signEs256(claims, signer.key, signer.cert)
  world.secrets.addJwt(token)
  return token
}

function unauthorized(world: World): Answer {
  const message = 'The login credentials are not valid, or your IBM Cloud account is not active.'
  const body = { errors: [{ code: 'UNAUTHORIZED', message }] }
  if (world.settings.icrMode) return json(400, body)
  return json(401, body, { 'www-authenticate': `Basic realm="${world.hosts.registry}"` })
}

function malformed(message: string): Answer {
  return json(400, { errors: [{ code: 'BAD_REQUEST', message }] })
}

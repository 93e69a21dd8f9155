import { randomUUID } from 'node:crypto'
import type { FastifyReply } from 'fastify'
import { seconds } from '../clock.ts'
import { signEs256 } from '../jwt.ts'
import {
  type App,
  at,
  basicCredentials,
  formFields,
  type Request,
  unknownName,
} from '../wire/request.ts'
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
export function addRegistryAuth(
  app: App,
  world: World,
  dependencies: { tokens: RegistryTokens; signer: { key: string; cert: string } },
): void {
  const { settings, hosts, secrets } = world
  const options = at(hosts.registry, 'oauth', (request, reply) => {
    if (!settings.realmMethods.some(method => method === request.method)) {
      return refuse(reply, settings.realmOtherStatus, ['UNSUPPORTED', 'not supported'])
    }
    const wish = request.method === 'POST' ? readForm(request) : readQuery(request)
    if (typeof wish === 'string') return refuse(reply, 400, ['BAD_REQUEST', wish])
    const access = parseScopes(wish.scopes)
    if (!access) return refuse(reply, 400, ['BAD_REQUEST', 'invalid scope'])
    const holder = identify(world, dependencies.tokens, { request, ...wish })
    if (!holder) return unauthorized(world, reply)
    secrets.add(wish.password)
    const token = sign(world, dependencies.signer, { ...holder, access: grantable(access, holder) })
    const issuedAt = new Date().toISOString()
    const answer = { token, access_token: token, expires_in: bearerSeconds, issued_at: issuedAt }
    return reply.send(answer)
  })
  app.all('/oauth/token', options)
}

export interface TokenRequest {
  user: string
  password: string
  scopes: string[]
}

function readQuery(request: Request): TokenRequest | string {
  const { query, method } = request
  if (method !== 'GET') return 'method not allowed'
  const unexpected = unknownName(query.keys(), queryNames)
  if (unexpected) return `unknown parameter ${unexpected}`
  if (query.get('service') !== 'registry') return 'service not known'
  const { user, password } = basicCredentials(request) ?? { user: '', password: '' }
  return { user, password, scopes: query.getAll('scope').flatMap(scope => scope.split(' ')) }
}

function readForm(request: Request): TokenRequest | string {
  const form = formFields(request)
  if (!form || request.query.size > 0) return 'malformed form'
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
  { request, user, password }: TokenRequest & { request: Request },
): Holder | undefined {
  if (user === 'token') {
    const row = tokens.byText(password, request.now)
    return row && { subject: row.id, namespaces: [row.organization.namespace], push: row.write }
  }
  if (user !== 'bearer' || request.fault.accessTokens === 'expired') return undefined
  const claims = world.sessions.verify(password, request.now, 'registry')
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

function unauthorized({ settings, hosts }: World, reply: FastifyReply): FastifyReply {
  const message = 'The login credentials are not valid, or your IBM Cloud account is not active.'
  if (settings.icrMode) return refuse(reply, 400, ['UNAUTHORIZED', message])
  reply.header('www-authenticate', `Basic realm="${hosts.registry}"`)
  return refuse(reply, 401, ['UNAUTHORIZED', message])
}

function refuse(
  reply: FastifyReply,
  status: number,
  [code, message]: [string, string],
): FastifyReply {
  return reply.code(status).send({ errors: [{ code, message }] })
}

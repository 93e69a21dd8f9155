import type { FastifyReply } from 'fastify'
import type { Fault } from '../faults.ts'
import { type App, at, basicCredentials, formFields, type Request } from '../wire/request.ts'
import type { World } from '../world.ts'
import { type Claimant, findClaimant } from './claimant.ts'
import { createLockout, type Lockout } from './lockout.ts'
import { type LoginOutcome, type Refusal, record, refused } from './login-outcome.ts'
import { malformed } from './uaa-request.ts'
import { scopesExist } from './uaa-tokens.ts'

/**
 * `POST <authorization endpoint>/oauth/token` and `POST <token endpoint>/oauth/token`
 * (cloudfoundry/uaa 4.8.0). Parameters belong in the body; the client is `cf` with an empty secret.
 *
 * | grant          | fields                           | who                                      |
 * |----------------|----------------------------------|------------------------------------------|
 * | password       | username, password               | a user, not federated                    |
 * | password       | username=`apikey`, password=key  | the key's user; at `login.` only, where IBM documents it |
 * | password       | passcode                         | the code's user, once                    |
 * | refresh_token  | refresh_token                    | same refresh token back, life unchanged  |
 * | iam_token      | iam_token                        | the user of an access token of IAM       |
 *
 * | refusal                                  | status, error                                  |
 * |------------------------------------------|------------------------------------------------|
 * | not POST                                 | 405 method_not_allowed                         |
 * | a query string                           | 406 query_string_not_allowed                   |
 * | no form, a field twice, an unknown field | 400 invalid_request                            |
 * | wrong client, wrong user or password     | 401 unauthorized "Bad credentials"             |
 * | account locked, federated user           | 401 unauthorized                               |
 * | password expired                         | 403 access_denied                              |
 * | refresh token expired, revoked, unknown  | 401 invalid_token, the token in the description |
 * | refresh token of another client          | 400 invalid_grant, the token in the description |
 * | token of IAM expired or unknown          | 401 invalid_token                              |
 * | a grant that `cf` may not use            | 401 invalid_client                             |
 * | an unknown grant                         | 400 unsupported_grant_type                     |
 * | a scope that the user has not            | 400 invalid_scope                              |
 */
export function addUaa(app: App, world: World): void {
  const lockout = createLockout()
  const answer = (request: Request, reply: FastifyReply) => {
    const outcome = malformed(request) ?? decide(world, lockout, request)
    record(world, outcome, request.now)
    reply.headers({ 'cache-control': 'no-store', pragma: 'no-cache' })
    return 'granted' in outcome ? reply.send(outcome.granted) : refuse(reply, outcome.refused)
  }
  app.all('/UAALoginServerWAR/oauth/token', at(world.hosts.login, 'login', answer))
  app.all('/oauth/token', at(world.hosts.uaa, 'login', answer))
}

const badCredentials: [number, string, string] = [401, 'unauthorized', 'Bad credentials']
const lockedWords = 'Your account has been locked because of too many failed attempts to login.'
const federatedWords =
  'BMXLS0202E: You are using a federated user ID, please use one time code to login with option --sso'
const expiredWords = 'Your current password has expired. Please reset your password.'
const grantsOfOthers = ['client_credentials', 'authorization_code', 'user_token']

function decide(world: World, lockout: Lockout, request: Request): LoginOutcome {
  const client = basicCredentials(request)
  if (client?.user !== 'cf' || client.password !== '') return refused('malformed', badCredentials)
  const form = formFields(request) ?? new Map<string, string>()
  const type = form.get('grant_type')
  if (!type) return refused('malformed', [400, 'invalid_request', 'Missing grant type'])
  if (!scopesExist(form.get('scope') ?? '')) {
    return refused('malformed', [
      400,
      'invalid_scope',
      'Invalid scope (empty) - this user is not allowed any of the requested scopes',
    ])
  }
  if (type === 'refresh_token') return refresh(world, request, form)
  if (type === 'iam_token') return exchange(world, request, form)
  if (type === 'password') return passwordGrant(world, lockout, { request, form })
  return grantsOfOthers.includes(type)
    ? refused('malformed', [401, 'invalid_client', `Unauthorized grant type: ${type}`])
    : refused('malformed', [400, 'unsupported_grant_type', `Unsupported grant type: ${type}`])
}

function exchange(world: World, request: Request, form: Map<string, string>): LoginOutcome {
  const user = world.iamTokens.verify(form.get('iam_token') ?? '', request.now)
  if (!user) return refused('iam_token', [401, 'invalid_token', 'Invalid IAM token'])
  const wish = { scope: form.get('scope') ?? '' }
  return { kind: 'iam_token', user, granted: world.sessions.open(user, request.now, wish) }
}

function refresh(world: World, request: Request, form: Map<string, string>): LoginOutcome {
  const token = form.get('refresh_token') ?? ''
  if (request.fault.refuse === 'wrong_client') {
    const words = `Wrong client for this refresh token: ${token}`
    return refused('refresh', [400, 'invalid_grant', words])
  }
  const found = world.sessions.refresh(token, request.now)
  if ('refused' in found) return refused('refresh', [401, 'invalid_token', found.refused])
  const { user, refreshToken } = found
  const wish = { scope: form.get('scope') ?? '', ...(refreshToken && { refreshToken }) }
  return { kind: 'refresh', user, granted: world.sessions.open(user, request.now, wish) }
}

function passwordGrant(
  world: World,
  lockout: Lockout,
  { request, form }: { request: Request; form: Map<string, string> },
): LoginOutcome {
  const claimant = findClaimant(world, request, form)
  const { kind, name, user } = claimant
  const refusal = refusalOf(claimant, request, lockout.locked(name, request.now))
  if (refusal === badCredentials) lockout.failed(name, request.now)
  if (refusal || !user) return refused(kind, refusal ?? badCredentials, name)
  lockout.succeeded(name)
  world.secrets.add(form.get('password') ?? '')
  world.secrets.add(form.get('passcode') ?? '')
  const wish = { scope: form.get('scope') ?? '' }
  return { kind, user, granted: world.sessions.open(user, request.now, wish) }
}

/** The first that applies: a locked account, before the password is checked; an expired password, if it is correct. */
function refusalOf(
  { user, problem }: Claimant,
  { fault }: Request,
  locked: boolean,
): [number, string, string] | undefined {
  const is = (what: Fault['refuse']) => fault.refuse === what || problem === what
  if (locked || is('locked')) return [401, 'unauthorized', lockedWords]
  if (is('federated')) return [401, 'unauthorized', federatedWords]
  if (!user) return badCredentials
  return is('password_expired') ? [403, 'access_denied', expiredWords] : undefined
}

function refuse(reply: FastifyReply, { status, code, description }: Refusal): FastifyReply {
  const challenge = `Basic realm="UAA/client", error="${code}", error_description="${description.replace(/[^ -~]/g, '?')}"`
  if (status === 401) reply.header('www-authenticate', challenge)
  return reply.code(status).send({ error: code, error_description: description })
}

import type { Logger } from 'pino'
import {
  type ListedToken,
  type RegistryToken,
  TokenError,
  type TokenIssuer,
} from '../issuer/issuer.ts'
import {
  type Answer,
  environmentFailure,
  failure,
  organizationFailure,
  record,
  text,
  unexpectedAnswer,
} from './http/answer.ts'
import type { Ask, Request } from './http/request.ts'
import type { Session } from './login/session.ts'
import type { Organizations } from './organizations.ts'
import { listedTokens, mintedToken, tokenText } from './tokens.ts'

interface Options {
  registryUrl: string
  registryHost: string
  session: Session
  organizations: Organizations
  request: Request
  logger: Logger
  now: () => number
}

/** A row of the list is about a kilobyte, and a busy organization has thousands. */
const mostBytes = 16 * 1024 * 1024

/*
 * The registry's token API (bluemix-go api/container/registryv1/tokens.go, and IBM's procedure of
 * 2017 for the headers `Authorization` and `Organization`):
 *
 * | operation | request                                                | done when            |
 * |-----------|--------------------------------------------------------|----------------------|
 * | mint      | POST /api/v1/tokens?permanent=true&description=D       | 2xx with a token     |
 * | list      | GET /api/v1/tokens                                     | 2xx; 404, 405, 501:  |
 * |           |                                                        | it cannot list       |
 * | revoke    | DELETE /api/v1/tokens/ID                               | 2xx, 404             |
 *
 * `write` is never sent: absent, the token only pulls. Nothing is ever revoked by description.
 */
export function createRegistry(options: Options): TokenIssuer {
  return {
    mint: (organization, description, signal) =>
      mint(options, { organization, description }, signal),
    list: (organization, signal) => list(options, organization, signal),
    revoke: (organization, id, signal) => revoke(options, { organization, id }, signal),
    accepts: (token, signal) => accepts(options, token, signal),
  }
}

async function mint(
  options: Options,
  { organization, description }: { organization: string; description: string },
  signal: AbortSignal,
): Promise<RegistryToken> {
  const action = `mint a token in organization "${organization}"`
  const path = `?permanent=true&description=${encodeURIComponent(description)}`
  const call = { operation: 'mint', method: 'POST', organization, path } as const
  const { guid, answer } = await inOrganization(options, call, signal)
  if (answer.status >= 300) throw failure('registry', action, answer, options.now())
  const token = mintedToken(answer.json)
  if (token === undefined) throw unexpectedAnswer(action, answer)
  options.logger.info({ organization: guid, description, token: token.id }, 'token minted')
  return token
}

async function list(
  options: Options,
  organization: string,
  signal: AbortSignal,
): Promise<ListedToken[] | 'unsupported'> {
  const action = `list the tokens of organization "${organization}"`
  const call = { operation: 'list', method: 'GET', organization, path: '' } as const
  const { answer } = await inOrganization(options, call, signal)
  if ([404, 405, 501].includes(answer.status)) return 'unsupported'
  if (answer.status >= 300) throw failure('registry', action, answer, options.now())
  const tokens = listedTokens(answer.json)
  if (tokens === undefined) throw unexpectedAnswer(action, answer)
  return tokens
}

async function revoke(
  options: Options,
  { organization, id }: { organization: string; id: string },
  signal: AbortSignal,
): Promise<void> {
  const action = `revoke a token of organization "${organization}"`
  // It becomes a part of the path; an empty one would name all tokens.
  if (!/^[\w-]{1,200}$/.test(id)) {
    throw organizationFailure('unusable_id', `cannot ${action}: its id has characters of no id`)
  }
  const call = { operation: 'revoke', method: 'DELETE', organization, path: `/${id}` } as const
  const { guid, answer } = await inOrganization(options, call, signal)
  const gone = answer.status < 300 || answer.status === 404
  if (!gone) throw failure('registry', action, answer, options.now())
  options.logger.info({ organization: guid, token: id }, 'token revoked')
}

interface Call {
  operation: string
  method: 'GET' | 'POST' | 'DELETE'
  organization: string
  /** After `/api/v1/tokens`. */
  path: string
}

/** Asks as a member of the organization; a refusal may mean that it was made anew meanwhile. */
async function inOrganization(options: Options, call: Call, signal: AbortSignal) {
  const { organizations, registryUrl, session } = options
  const { operation, method, organization } = call
  const url = `${registryUrl}/api/v1/tokens${call.path}`
  const ask = { operation, method, url, sent: [], maxBytes: mostBytes }
  const askAs = (guid: string) =>
    session.authorized({ ...ask, headers: { organization: guid } }, signal)
  const guid = await organizations.guid(organization, signal)
  const answer = await askAs(guid)
  if (answer.status !== 401) return { guid, answer }
  const again = await organizations.guidNow(organization, signal)
  return again === guid ? { guid, answer } : { guid: again, answer: await askAs(again) }
}

interface RegistryLogin {
  registryUrl: string
  registryHost: string
  request: Request
  now: () => number
}

interface Realm {
  url: string
  service: string | undefined
}

/**
 * Logs in at the registry's token server as `docker login -u token` does, without a scope
 * (distribution docs/spec/auth/token.md). 401 is a refusal, and 400 the same at IBM.
 */
async function accepts(
  options: RegistryLogin,
  token: string,
  signal: AbortSignal,
): Promise<boolean> {
  const { registryUrl, registryHost, request, now } = options
  const action = 'check a token at the registry'
  const ping = { operation: 'registry_ping', method: 'GET', url: `${registryUrl}/v2/` } as const
  const challenge = await request({ ...ping, sent: [] }, signal)
  if (challenge.status !== 401) throw unchallenged(challenge, action, now())
  const realm = realmOf(challenge, [registryHost, new URL(registryUrl).host])
  if (realm instanceof TokenError) throw realm
  const answer = await request(exchange(token, realm), signal)
  if (answer.status === 401 || answer.status === 400) return false
  if (answer.status >= 300) throw failure('registry', action, answer, now())
  const { token: bearer, access_token: access } = record(answer.json)
  if ((tokenText(bearer) ?? tokenText(access)) === undefined) throw unexpectedAnswer(action, answer)
  return true
}

function exchange(token: string, realm: { url: string; service: string | undefined }): Ask {
  const url = new URL(realm.url)
  if (realm.service !== undefined) url.searchParams.set('service', realm.service)
  url.searchParams.set('account', 'token')
  const credential = Buffer.from(`token:${token}`).toString('base64')
  const headers = { authorization: `Basic ${credential}` }
  const operation = 'registry_exchange'
  return { operation, method: 'GET', url: url.href, headers, sent: [token, credential] }
}

function unchallenged(answer: Answer, action: string, nowMs: number): TokenError {
  return answer.status < 300
    ? environmentFailure('transient', 'no_challenge', `cannot ${action}: it asks for no token`)
    : failure('registry', action, answer, nowMs)
}

/**
 * The realm of the registry's challenge (distribution docs/spec/auth/token.md):
 * `Bearer realm="https://registry.<d>/oauth/token",service="registry"`. A credential goes only to
 * the registry's own host, whatever the challenge says.
 * @param hosts the registry's own, `host[:port]`
 */
export function realmOf(answer: Answer, hosts: string[]): Realm | TokenError {
  const challenge = text([answer.headers['www-authenticate']].flat()[0]) ?? ''
  const parameter = (name: string) =>
    new RegExp(`^Bearer .*?\\b${name}="([^"]*)"`, 'i').exec(challenge)?.[1]
  const realm = parameter('realm')
  if (realm === undefined || !URL.canParse(realm)) {
    const message = `cannot check a token: ${answer.origin} does not name its token server`
    return environmentFailure('transient', 'no_challenge', message)
  }
  const { protocol, host, href } = new URL(realm)
  const own = hosts.map(each => new URL(`https://${each}`).host)
  if (protocol === 'https:' && own.includes(host)) {
    return { url: href, service: parameter('service') }
  }
  const message = `cannot check a token: ${answer.origin} sends credentials to another host, ${host}`
  return environmentFailure('permanent', 'unexpected_realm', message)
}

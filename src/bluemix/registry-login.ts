import { TokenError } from '../issuer/issuer.ts'
import {
  type Answer,
  environmentFailure,
  failure,
  record,
  text,
  unexpectedAnswer,
} from './http/answer.ts'
import type { Ask, Request } from './http/request.ts'
import { tokenText } from './tokens.ts'

interface Dependencies {
  request: Request
  now: () => number
}

interface Settings {
  registryUrl: string
  registryHost: string
}

/** Whether the registry accepts a token as the credential of a pull secret. */
export type Accepts = (token: string, signal: AbortSignal) => Promise<boolean>

interface Realm {
  url: string
  service: string | undefined
}

const action = 'check a token at the registry'

/**
 * Logs in at the registry's token server as `docker login -u token` does, without a scope
 * (distribution docs/spec/auth/oauth.md and token.md). As containerd does, by POST first, then by
 * GET (core/remotes/docker/authorizer.go):
 *
 * | POST                 | GET             | the credential is                                |
 * |----------------------|-----------------|--------------------------------------------------|
 * | 2xx with a token     |                 | accepted                                         |
 * | 401, 400, 404, 405   | 2xx             | accepted                                         |
 * | 401                  | 401             | refused                                          |
 * | 401                  | 404, 405        | refused: the server takes POST only              |
 * | 404, 405             | 401             | refused: the server takes GET only               |
 * | 400                  | not 2xx         | unknown: a 400 says nothing about the credential |
 * | anything else        |                 | unknown                                          |
 */
export function createAccepts(dependencies: Dependencies, settings: Settings): Accepts {
  const { request, now } = dependencies
  return async (token, signal) => {
    const realm = await findRealm(dependencies, settings, signal)
    const post = await request(postOf(token, realm), signal)
    if (isGrant(post)) return true
    if (![400, 401, 404, 405].includes(post.status)) throw failure('registry', action, post, now())
    const get = await request(getOf(token, realm), signal)
    if (isGrant(get)) return true
    const statuses = [post.status, get.status]
    if (statuses.includes(401) && statuses.every(isRefusalOrMissing)) return false
    throw failure('registry', action, get, now())
  }
}

/** A request that a registry answers with its challenge, whatever else it does. */
export function pingOf(registryUrl: string): Ask {
  return { operation: 'registry_ping', method: 'GET', url: `${registryUrl}/v2/`, sent: [] }
}

async function findRealm(
  { request, now }: Dependencies,
  { registryUrl, registryHost }: Settings,
  signal: AbortSignal,
): Promise<Realm> {
  const challenge = await request(pingOf(registryUrl), signal)
  if (challenge.status !== 401) throw unchallenged(challenge, now())
  const realm = realmOf(challenge, [registryHost, new URL(registryUrl).host])
  if (realm instanceof TokenError) throw realm
  return realm
}

function isRefusalOrMissing(status: number): boolean {
  return status === 401 || status === 404 || status === 405
}

function isGrant(answer: Answer): boolean {
  if (answer.status >= 300) return false
  const { token, access_token: access } = record(answer.json)
  if ((tokenText(token) ?? tokenText(access)) === undefined) throw unexpectedAnswer(action, answer)
  return true
}

function postOf(token: string, { url, service }: Realm): Ask {
  const login = { grant_type: 'password', client_id: 'pullpass', username: 'token' }
  const form = { ...login, password: token, ...(service !== undefined && { service }) }
  return { operation: 'registry_exchange', method: 'POST', url, form, sent: [token] }
}

function getOf(token: string, realm: Realm): Ask {
  const url = new URL(realm.url)
  if (realm.service !== undefined) url.searchParams.set('service', realm.service)
  url.searchParams.set('account', 'token')
  const credential = Buffer.from(`token:${token}`).toString('base64')
  const headers = { authorization: `Basic ${credential}` }
  const operation = 'registry_exchange'
  return { operation, method: 'GET', url: url.href, headers, sent: [token, credential] }
}

function unchallenged(answer: Answer, nowMs: number): TokenError {
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

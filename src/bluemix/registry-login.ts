import { TokenError } from '../registry-token/registry-token.ts'
import { type Answer, record, text } from './http/answer.ts'
import { environmentFailure, failure, unexpectedAnswer } from './http/failure.ts'
import type { Ask, Request } from './http/request.ts'
import { tokenText } from './tokens.ts'

interface RegistryLogin {
  registryUrl: string
  registryHost: string
  request: Request
  now: () => number
}

export interface Realm {
  url: string
  service: string | undefined
}

/**
 * Logs in at the registry's token server as `docker login -u token` does, without a scope
 * (distribution docs/spec/auth/token.md). 401 is a refusal, and 400 the same at IBM.
 */
export async function accepts(
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
  return environmentFailure('permanent', 'foreign_realm', message)
}

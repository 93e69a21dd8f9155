import type { Discovery } from '../endpoints.ts'
import {
  type Answer,
  environmentFailure,
  failure,
  record,
  refreshEnded,
  unexpectedAnswer,
} from '../http/answer.ts'
import type { Request } from '../http/request.ts'
import { lifetimeMs, tokenText } from '../tokens.ts'
import type { Credentials } from './credentials.ts'

export interface TokenEndpoint {
  /** One attempt. Rejects with a `locked` TokenError where it was refused. */
  login(credentials: Credentials, signal: AbortSignal): Promise<Grant>
  /** `'ended'`: this refresh token is of no use any more. */
  refresh(refreshToken: string, signal: AbortSignal): Promise<Grant | 'ended'>
}

interface Post {
  operation: 'login' | 'refresh'
  form: Record<string, string>
  secret: string
}

type Send = (post: Post, signal: AbortSignal) => Promise<Answer>

/** Whom to ask for UAA tokens: the environment's UAA itself, or IAM, which gives them along. */
export function createTokenEndpoint(options: {
  /** Base of IAM; absent: UAA. */
  iam: string | undefined
  discovery: Discovery
  request: Request
  now: () => number
}): TokenEndpoint {
  const { iam, now } = options
  const send = iam === undefined ? uaa(options) : iamAt(iam, options.request)
  const read = iam === undefined ? uaaGrant : iamGrant
  return {
    login: async (credentials, signal) => {
      const form = loginForm(credentials, iam !== undefined)
      const secret = credentials.kind === 'api-key' ? credentials.apiKey : credentials.password
      const answer = await send({ operation: 'login', form, secret }, signal)
      if (answer.status < 300) return read('log in', answer)
      throw failure('login', 'log in', answer, now())
    },
    refresh: async (refreshToken, signal) => {
      const form = refreshForm(refreshToken)
      const answer = await send({ operation: 'refresh', form, secret: refreshToken }, signal)
      if (answer.status < 300) return read('refresh the login', answer)
      if (refreshEnded(answer)) return 'ended'
      throw failure('login', 'refresh the login', answer, now())
    },
  }
}

function uaa({ discovery, request }: { discovery: Discovery; request: Request }): Send {
  return async ({ operation, form, secret }, signal) => {
    const { login } = await discovery.endpoints(signal)
    const headers = { authorization: basic('cf:') }
    const url = `${login}/oauth/token`
    const all = { ...form, ...uaaAlways }
    return request({ operation, method: 'POST', url, headers, form: all, sent: [secret] }, signal)
  }
}

/** `/oidc/token` was IAM's path in 2017, `/identity/token` is today's. */
function iamAt(iam: string, request: Request): Send {
  let path = '/oidc/token'
  return async ({ operation, form, secret }, signal) => {
    const headers = { authorization: basic('bx:bx') }
    const all = { ...form, ...iamAlways }
    const ask = { operation, method: 'POST', headers, form: all, sent: [secret] } as const
    const answer = await request({ ...ask, url: iam + path }, signal)
    if (answer.status !== 404) return answer
    path = path === '/oidc/token' ? '/identity/token' : '/oidc/token'
    return request({ ...ask, url: iam + path }, signal)
  }
}

function basic(user: string): string {
  return `Basic ${Buffer.from(user).toString('base64')}`
}

/** What a login or a refresh gives. */
export interface Grant {
  /** The UAA access token. */
  accessToken: string
  refreshToken: string | undefined
  lifetimeMs: number
}

/** A grant in use. Times are epoch milliseconds. */
export interface Held extends Grant {
  /** Of the credentials it was got with. */
  digest: string
  renewAt: number
  expiresAt: number
}

/** To be renewed at 80 % of its life, which began when it was asked for. */
export function hold(grant: Grant, digest: string, askedAt: number): Held {
  const { lifetimeMs } = grant
  return { ...grant, digest, renewAt: askedAt + 0.8 * lifetimeMs, expiresAt: askedAt + lifetimeMs }
}

/*
 * | grant    | UAA form                                    | IAM form                                |
 * |----------|---------------------------------------------|-----------------------------------------|
 * | API key  | grant_type=password, username=apikey,       | grant_type=urn:...:apikey, apikey       |
 * |          | password=<key>                              |                                         |
 * | password | grant_type=password, username, password     | grant_type=password, username, password |
 * | refresh  | grant_type=refresh_token, refresh_token     | the same, with IAM's refresh token      |
 * | always   | scope=                                      | response_type=cloud_iam,uaa and         |
 * |          |                                             | uaa_client_id=cf, uaa_client_secret=    |
 * | client   | cf, empty secret                            | bx:bx                                   |
 *
 * (bluemix-go c514a14 authentication/uaa.go and iam.go, ibm-cloud-cli-sdk 0c199ab)
 */
const iamApiKeyGrant = 'urn:ibm:params:oauth:grant-type:apikey'
const uaaAlways = { scope: '' }
const iamAlways = {
  response_type: 'cloud_iam,uaa',
  uaa_client_id: 'cf',
  uaa_client_secret: '',
}

/** The fields that tell who logs in. */
function loginForm(credentials: Credentials, atIam: boolean): Record<string, string> {
  if (credentials.kind === 'password') {
    const { username, password } = credentials
    return { grant_type: 'password', username, password }
  }
  const { apiKey } = credentials
  return atIam
    ? { grant_type: iamApiKeyGrant, apikey: apiKey }
    : { grant_type: 'password', username: 'apikey', password: apiKey }
}

/** The fields that renew a session. */
function refreshForm(refreshToken: string): Record<string, string> {
  return { grant_type: 'refresh_token', refresh_token: refreshToken }
}

/** What UAA gave; throws a TokenError where that is no token. */
function uaaGrant(action: string, answer: Answer): Grant {
  const body = record(answer.json)
  return grant(action, answer, { access: body.access_token, refresh: body.refresh_token })
}

/** IAM's answer holds tokens of its own, of use for a refresh only, beside UAA's. */
function iamGrant(action: string, answer: Answer): Grant {
  const body = record(answer.json)
  if (tokenText(body.access_token) !== undefined && tokenText(body.uaa_token) === undefined) {
    const message = `cannot ${action}: IAM at ${answer.origin} gives no UAA tokens; use login: uaa`
    // Another login would give the same, so it stands like a refusal.
    throw environmentFailure('locked', 'uaa_token_missing', message)
  }
  return grant(action, answer, { access: body.uaa_token, refresh: body.refresh_token })
}

function grant(action: string, answer: Answer, got: { access: unknown; refresh: unknown }): Grant {
  const accessToken = tokenText(got.access)
  if (accessToken === undefined) throw unexpectedAnswer(action, answer)
  return {
    accessToken,
    refreshToken: tokenText(got.refresh),
    lifetimeMs: lifetimeMs(accessToken, record(answer.json).expires_in),
  }
}

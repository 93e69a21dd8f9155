import { randomUUID } from 'node:crypto'
import type { TokenError } from '../../issuer/issuer.ts'
import type { Discovery } from '../endpoints.ts'
import {
  type Answer,
  environmentFailure,
  failure,
  record,
  refreshEnded,
  said,
  unexpectedAnswer,
} from '../http/answer.ts'
import type { Request } from '../http/request.ts'
import { lifetimeMs, tokenText } from '../tokens.ts'
import type { Credentials } from './credentials.ts'

/** UAA or IAM, as the lockout guard uses it. */
export interface LoginServer {
  /** Finds the login server. Rejects where the environment does not answer. */
  locate(signal: AbortSignal): Promise<void>
  /** One login. Rejects with a `locked` TokenError where it was refused. */
  login(credentials: Credentials, signal: AbortSignal): Promise<Grant>
  /** Sends a request that names no user. Undefined: the login server answered it in its own shape. */
  probe(signal: AbortSignal): Promise<TokenError | undefined>
}

export interface TokenEndpoint extends LoginServer {
  /** `'ended'`: this refresh token is of no use any more. */
  refresh(refreshToken: string, signal: AbortSignal): Promise<Grant | 'ended'>
}

interface Post {
  operation: 'login' | 'refresh' | 'probe' | 'exchange'
  form: Record<string, string>
  secret: string
}

type Send = (post: Post, signal: AbortSignal) => Promise<Answer>

interface Dependencies {
  discovery: Discovery
  request: Request
  now: () => number
}

interface Settings {
  /** Base of IAM; absent: UAA. */
  iam: string | undefined
}

/** The source of UAA tokens: the environment's UAA itself, or IAM. */
export function createTokenEndpoint(
  { discovery, request, now }: Dependencies,
  { iam }: Settings,
): TokenEndpoint {
  const toUaa = uaaAt(discovery, request)
  const send = iam === undefined ? toUaa : iamAt(iam, request)
  const read = iam === undefined ? uaaReader : iamReader(toUaa, now)
  const failed = (action: string, answer: Answer) => failure('login', action, answer, now())
  return {
    locate: async signal => void (await discovery.endpoints(signal)),
    login: async (credentials, signal) => {
      try {
        const answer = await send(loginPost(credentials, iam !== undefined), signal)
        if (answer.status >= 300) throw failed('log in', answer)
        return await read(answer, signal)
      } catch (error) {
        // The login server may have moved.
        discovery.forget()
        throw error
      }
    },
    refresh: async (refreshToken, signal) => {
      const answer = await send(refreshPost('refresh', refreshToken), signal)
      if (answer.status < 300) return read(answer, signal)
      if (refreshEnded(answer)) return 'ended'
      throw failed('refresh the login', answer)
    },
    probe: async signal => {
      try {
        const answer = await send(refreshPost('probe', randomUUID()), signal)
        if (refreshEnded(answer)) return undefined
        throw failed('log in', answer)
      } catch (error) {
        discovery.forget()
        return error as TokenError
      }
    },
  }
}

function uaaAt(discovery: Discovery, request: Request): Send {
  return async ({ operation, form, secret }, signal) => {
    const { login } = await discovery.endpoints(signal)
    const headers = { authorization: basic('cf:') }
    const url = `${login}/oauth/token`
    const all = { ...form, scope: '' }
    return request({ operation, method: 'POST', url, headers, form: all, sent: [secret] }, signal)
  }
}

/** How this IAM wants to be asked; it is found out by asking. */
interface IamForm {
  path: '/oidc/token' | '/identity/token'
  separator: ',' | ' '
}

function iamAt(iam: string, request: Request): Send {
  const iamForm: IamForm = { path: '/oidc/token', separator: ',' }
  return async ({ operation, form, secret }, signal) => {
    const headers = { authorization: basic('bx:bx') }
    const ask = () => {
      const all = { ...form, ...iamClient, response_type: `cloud_iam${iamForm.separator}uaa` }
      const url = iam + iamForm.path
      return request({ operation, method: 'POST', url, headers, form: all, sent: [secret] }, signal)
    }
    const first = await ask()
    if (!adapt(iamForm, first)) return first
    const second = await ask()
    return adapt(iamForm, second) ? ask() : second
  }
}

/**
 * IAM of 2017 answers at `/oidc/token` and takes `cloud_iam,uaa`; today's answers at
 * `/identity/token` and documents `cloud_iam uaa`. True: the other form should be tried. Neither
 * answer says anything about the credentials.
 */
function adapt(iamForm: IamForm, answer: Answer): boolean {
  if (answer.status === 404) {
    iamForm.path = iamForm.path === '/oidc/token' ? '/identity/token' : '/oidc/token'
    return true
  }
  const isUnknownType = answer.status === 400 && said(answer).detail.includes('response_type')
  if (isUnknownType) iamForm.separator = iamForm.separator === ',' ? ' ' : ','
  return isUnknownType
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
 * | exchange | grant_type=iam_token,                       |                                         |
 * |          | iam_token=<IAM's access token>              |                                         |
 * | always   | scope=                                      | response_type=cloud_iam,uaa (or a blank)|
 * |          |                                             | uaa_client_id=cf, uaa_client_secret=    |
 * | client   | cf, empty secret                            | bx:bx                                   |
 *
 * (bluemix-go c514a14 authentication/uaa.go and iam.go, ibm-cloud-cli-sdk 0c199ab)
 */
const iamApiKeyGrant = 'urn:ibm:params:oauth:grant-type:apikey'
const iamClient = { uaa_client_id: 'cf', uaa_client_secret: '' }

/** The request that names the user. */
function loginPost(credentials: Credentials, atIam: boolean): Post {
  const operation = 'login'
  if (credentials.kind === 'password') {
    const { username, password } = credentials
    return { operation, form: { grant_type: 'password', username, password }, secret: password }
  }
  const { apiKey } = credentials
  const form: Post['form'] = atIam
    ? { grant_type: iamApiKeyGrant, apikey: apiKey }
    : { grant_type: 'password', username: 'apikey', password: apiKey }
  return { operation, form, secret: apiKey }
}

/** The request that renews a session. */
function refreshPost(operation: 'refresh' | 'probe', secret: string): Post {
  return { operation, form: { grant_type: 'refresh_token', refresh_token: secret }, secret }
}

async function uaaReader(answer: Answer): Promise<Grant> {
  return uaaGrant(answer)
}

/** Throws a TokenError where the answer has no token. */
function uaaGrant(answer: Answer): Grant {
  const body = record(answer.json)
  return grant(answer, body.access_token, body.refresh_token)
}

/**
 * IAM's own tokens are of use for a refresh only. Where no UAA token comes with them, UAA gives one
 * for IAM's access token.
 */
function iamReader(toUaa: Send, now: () => number) {
  return async (answer: Answer, signal: AbortSignal): Promise<Grant> => {
    const body = record(answer.json)
    const secret = tokenText(body.access_token)
    if (secret === undefined || tokenText(body.uaa_token) !== undefined) {
      return grant(answer, body.uaa_token, body.refresh_token)
    }
    const form = { grant_type: 'iam_token', iam_token: secret }
    const exchanged = await toUaa({ operation: 'exchange', form, secret }, signal)
    if (exchanged.status < 300)
      return { ...uaaGrant(exchanged), refreshToken: tokenText(body.refresh_token) }
    const failed = failure('login', 'exchange the IAM token', exchanged, now())
    throw failed.kind === 'locked' ? noUaaToken(answer, exchanged) : failed
  }
}

/** Another login would give the same, so this counts as a refusal. */
function noUaaToken({ origin }: Answer, { origin: uaa }: Answer): TokenError {
  const why = `IAM at ${origin} gives no UAA token, and ${uaa} takes none of its tokens`
  return environmentFailure('locked', 'uaa_token_missing', `cannot log in: ${why}; use login: uaa`)
}

function grant(answer: Answer, access: unknown, refresh: unknown): Grant {
  const accessToken = tokenText(access)
  if (accessToken === undefined) throw unexpectedAnswer('log in', answer)
  return {
    accessToken,
    refreshToken: tokenText(refresh),
    lifetimeMs: lifetimeMs(accessToken, record(answer.json).expires_in),
  }
}

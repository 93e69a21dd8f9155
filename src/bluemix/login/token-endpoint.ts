import type { Discovery } from '../endpoints.ts'
import type { Answer } from '../http/answer.ts'
import { failure, refreshEnded } from '../http/failure.ts'
import type { Request } from '../http/request.ts'
import type { Credentials } from './credentials.ts'
import {
  type Grant,
  iamAlways,
  iamGrant,
  loginForm,
  refreshForm,
  uaaAlways,
  uaaGrant,
} from './grant.ts'

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

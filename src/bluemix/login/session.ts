import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { failedIn, type TokenError } from '../../issuer/issuer.ts'
import type { Discovery } from '../endpoints.ts'
import { type Answer, said } from '../http/answer.ts'
import { type Ask, type Request, untilAborted } from '../http/request.ts'
import type { CredentialFiles } from './credentials.ts'
import type { Note } from './lockout-guard.ts'
import { createGuardedLogin, type GuardedLogin } from './lockout-guard.ts'
import type { TokenEndpoint } from './oauth.ts'
import { type Grant, type Held, hold } from './oauth.ts'

export interface Session {
  /**
   * The request with the session's token; where that is refused, once more with a new one, but for
   * one that has just been renewed for that reason.
   */
  authorized(ask: Ask, signal: AbortSignal): Promise<Answer>
  /** The refusal of the last login, for as long as it stands. */
  refusal(): TokenError | undefined
}

interface Options {
  credentials: CredentialFiles
  discovery: Discovery
  tokenEndpoint: TokenEndpoint
  request: Request
  logger: Logger
  metrics: Registry
  now: () => number
  note: Note
  /** Ends logins, which callers share; a caller's own signal only lets that caller go. */
  closing: AbortSignal
}

interface State extends Options {
  login: GuardedLogin
  held: Held | undefined
  flight: Promise<string> | undefined
  /** When a token was last discarded because a request with it was refused. */
  discardedAt: number
  /** Of the credentials as they are now, as far as is known. */
  digest: string | undefined
}

/** The registry refuses a token and a user who is no member alike: renewing does not help the latter. */
const discardPauseMs = 60_000

/** When a renewal fails that is not urgent yet, the next is tried so much later. */
const renewalPauseMs = 30_000

/**
 * One login at a time, shared by all who wait for it, and renewed at 80 % of its life; other
 * credentials in the files mean another login.
 */
export function createSession(options: Options): Session {
  const state: State = {
    ...options,
    login: createGuardedLogin(options),
    held: undefined,
    flight: undefined,
    discardedAt: Number.NEGATIVE_INFINITY,
    digest: undefined,
  }
  options.credentials.onChange(digest => {
    state.digest = digest
    state.login.credentialsAre(digest)
    if (state.held?.digest !== digest) state.held = undefined
  })
  return {
    authorized: (ask, signal) => authorized(state, ask, signal),
    refusal: state.login.refusal,
  }
}

async function authorized(state: State, ask: Ask, signal: AbortSignal): Promise<Answer> {
  const token = await accessToken(state, signal)
  const answer = await state.request(bearing(ask, token), signal)
  if (answer.status !== 401 || said(answer).code === 'CF-NotAuthenticated') return answer
  // Refused, so of no use whatever its life; unless another caller has renewed it meanwhile.
  if (state.held?.accessToken === token && state.held.expiresAt > 0) {
    if (state.now() < state.discardedAt + discardPauseMs) return answer
    state.discardedAt = state.now()
    state.held = { ...state.held, renewAt: 0, expiresAt: 0 }
  }
  return state.request(bearing(ask, await accessToken(state, signal)), signal)
}

async function accessToken(state: State, signal: AbortSignal): Promise<string> {
  const { held, now } = state
  if (held !== undefined && now() < held.renewAt) return held.accessToken
  state.flight ??= obtain(state)
    .catch(failedIn('login'))
    .finally(() => {
      state.flight = undefined
    })
  return untilAborted(state.flight, signal)
}

async function obtain(state: State): Promise<string> {
  const credentials = await state.credentials.read()
  const { digest } = credentials
  state.digest = digest
  state.login.check(digest)
  const former = state.held?.digest === digest ? state.held : undefined
  const askedAt = state.now()
  try {
    const grant = (await renewed(state, former)) ?? (await state.login.attempt(credentials))
    // With credentials that changed meanwhile, the next caller logs in anew.
    if (state.digest === digest) state.held = hold(grant, digest, askedAt)
    return grant.accessToken
  } catch (error) {
    return afterFailure(state, error as TokenError, former)
  }
}

async function renewed(state: State, former: Held | undefined): Promise<Grant | undefined> {
  if (former?.refreshToken === undefined) return undefined
  const grant = await state.tokenEndpoint.refresh(former.refreshToken, state.closing)
  // Some environments give another refresh token each time, some the same or none.
  if (grant === 'ended') return undefined
  return { ...grant, refreshToken: grant.refreshToken ?? former.refreshToken }
}

function afterFailure(state: State, error: TokenError, former: Held | undefined): string {
  if (error.kind === 'locked') {
    state.login.refuse(error)
    state.held = undefined
  }
  if (error.kind !== 'transient' || former === undefined || state.now() >= former.expiresAt) {
    throw error
  }
  const renewAt = Math.min(state.now() + renewalPauseMs, former.expiresAt)
  state.held = { ...former, renewAt }
  return former.accessToken
}

function bearing(ask: Ask, token: string): Ask {
  const headers = { ...ask.headers, authorization: `Bearer ${token}` }
  return { ...ask, headers, sent: [...ask.sent, token] }
}

import { failedIn, type TokenError } from '../../issuer/issuer.ts'
import { type Answer, said } from '../http/answer.ts'
import { type Ask, type Request, untilAborted } from '../http/request.ts'
import type { CredentialFiles } from './credentials.ts'
import type { LockoutGuard } from './lockout-guard.ts'
import { type Grant, type Held, hold, type TokenEndpoint } from './oauth.ts'

export interface Session {
  /**
   * The request with the session's token; where that is refused, once more with a new one, but for
   * one that has just been renewed for that reason.
   */
  authorized(ask: Ask, signal: AbortSignal): Promise<Answer>
  /** Why no login is allowed now. */
  refusal(): TokenError | undefined
}

interface Dependencies {
  credentials: CredentialFiles
  guard: LockoutGuard
  tokenEndpoint: TokenEndpoint
  request: Request
  now: () => number
  /** Ends logins, which callers share; a caller's own signal only lets that caller go. */
  closing: AbortSignal
}

interface State {
  dependencies: Dependencies
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
export function createSession(dependencies: Dependencies): Session {
  const { credentials, guard } = dependencies
  const state: State = {
    dependencies,
    held: undefined,
    flight: undefined,
    discardedAt: Number.NEGATIVE_INFINITY,
    digest: undefined,
  }
  credentials.onChange(digest => {
    state.digest = digest
    if (state.held?.digest !== digest) state.held = undefined
  })
  return {
    authorized: (ask, signal) => authorized(state, ask, signal),
    refusal: () => (state.digest === undefined ? undefined : guard.problem(state.digest)),
  }
}

async function authorized(state: State, ask: Ask, signal: AbortSignal): Promise<Answer> {
  const { request, now } = state.dependencies
  const token = await accessToken(state, signal)
  const answer = await request(bearing(ask, token), signal)
  if (answer.status !== 401 || said(answer).code === 'CF-NotAuthenticated') return answer
  // Refused, so of no use whatever its life; unless another caller has renewed it meanwhile.
  if (state.held?.accessToken === token && state.held.expiresAt > 0) {
    if (now() < state.discardedAt + discardPauseMs) return answer
    state.discardedAt = now()
    state.held = { ...state.held, renewAt: 0, expiresAt: 0 }
  }
  return request(bearing(ask, await accessToken(state, signal)), signal)
}

async function accessToken(state: State, signal: AbortSignal): Promise<string> {
  const { held } = state
  if (held !== undefined && state.dependencies.now() < held.renewAt) return held.accessToken
  state.flight ??= obtain(state)
    .catch(failedIn('login'))
    .finally(() => {
      state.flight = undefined
    })
  return untilAborted(state.flight, signal)
}

async function obtain(state: State): Promise<string> {
  const { credentials: files, guard, now, closing } = state.dependencies
  const credentials = await files.read()
  const { digest } = credentials
  state.digest = digest
  const former = state.held?.digest === digest ? state.held : undefined
  const askedAt = now()
  try {
    const grant = (await renewed(state, former)) ?? (await guard.login(credentials, closing))
    // With credentials that changed meanwhile, the next caller logs in anew.
    if (state.digest === digest) state.held = hold(grant, digest, askedAt)
    return grant.accessToken
  } catch (error) {
    return afterFailure(state, error as TokenError, former)
  }
}

async function renewed(state: State, former: Held | undefined): Promise<Grant | undefined> {
  if (former?.refreshToken === undefined) return undefined
  const { tokenEndpoint, closing } = state.dependencies
  const grant = await tokenEndpoint.refresh(former.refreshToken, closing)
  // Some environments give another refresh token each time, some the same or none.
  if (grant === 'ended') return undefined
  return { ...grant, refreshToken: grant.refreshToken ?? former.refreshToken }
}

function afterFailure(state: State, error: TokenError, former: Held | undefined): string {
  const nowMs = state.dependencies.now()
  if (error.kind === 'locked') state.held = undefined
  if (error.kind !== 'transient' || former === undefined || nowMs >= former.expiresAt) throw error
  state.held = { ...former, renewAt: Math.min(nowMs + renewalPauseMs, former.expiresAt) }
  return former.accessToken
}

function bearing(ask: Ask, token: string): Ask {
  const headers = { ...ask.headers, authorization: `Bearer ${token}` }
  return { ...ask, headers, sent: [...ask.sent, token] }
}

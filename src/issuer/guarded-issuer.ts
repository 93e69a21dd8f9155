import {
  BrokenCircuitError,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleWhen,
} from 'cockatiel'
import { changed, type Issuer, TokenError } from './issuer.ts'

const minuteMs = 60_000
const revokesPerMinute = 120
/** A pause that the environment asks for is not kept for longer. */
const longestPauseMs = 300_000

export interface GuardedIssuer extends Issuer {
  /**
   * Milliseconds until the limit allows another mint; 0: now. A mint before that time rejects at
   * once with a TokenError `mint_limit`, so that nothing has to wait inside of `mint`.
   */
  mintsAvailableIn(): number
}

/**
 * The same issuer with limits on mints and revocations, one set for the whole process, so that no
 * fault of ours can flood the environment with permanent tokens or revoke all of them at once. A
 * call above a limit rejects at once: transient, `mint_limit` or `revoke_limit`, `retryAfterMs`.
 *
 * Circuit breakers, which a failure opens for the calls that need the request that failed:
 *
 * | request that failed       | calls that are rejected                                |
 * |---------------------------|--------------------------------------------------------|
 * | login, discovery          | every call                                             |
 * | organization look-up      | calls for that organization                            |
 * | list, text, mint, revoke  | the same call for the same organization                |
 *
 * A breaker opens after three failures in a row and lets one call through again after 1 to 5 s; or
 * for the time that the environment asks for (429). A rejected call gets the failure that opened it,
 * with `sent: false`. Another credential closes all of them.
 */
export function guardIssuer(
  { issuer }: { issuer: Issuer },
  { mintsPerMinute }: { mintsPerMinute: number },
): GuardedIssuer {
  const mints = createLimit({ code: 'mint_limit', perMinute: mintsPerMinute })
  const revokes = createLimit({ code: 'revoke_limit', perMinute: revokesPerMinute })
  const breakers = createBreakers()
  issuer.onCredentialChange(breakers.close)
  return {
    start: issuer.start,
    close: issuer.close,
    problem: issuer.problem,
    onCredentialChange: issuer.onCredentialChange,
    // Needs the registry only, whose failures say nothing about the rest.
    accepts: issuer.accepts,
    list: (organization, row, signal) =>
      breakers.pass('list', organization, () => issuer.list(organization, row, signal)),
    text: (organization, id, signal) =>
      breakers.pass('text', organization, () => issuer.text(organization, id, signal)),
    mint: (request, signal) =>
      mints.count(() =>
        breakers.pass('mint', request.organization, () => issuer.mint(request, signal)),
      ),
    revoke: (organization, id, signal) =>
      revokes.count(() =>
        breakers.pass('revoke', organization, () => issuer.revoke(organization, id, signal)),
      ),
    mintsAvailableIn: mints.availableIn,
  }
}

type Call<T> = () => Promise<T>

/** At most so many calls in any minute. One that did nothing for certain does not count. */
function createLimit({ code, perMinute }: { code: string; perMinute: number }) {
  const begun: number[] = []
  const availableIn = () => {
    const since = performance.now() - minuteMs
    while (begun.length > 0 && (begun[0] ?? 0) <= since) begun.shift()
    return begun.length < perMinute ? 0 : Math.ceil((begun[0] ?? 0) - since)
  }
  const count = async <T>(call: Call<T>): Promise<T> => {
    const retryAfterMs = availableIn()
    if (retryAfterMs > 0) throw limitReached(code, perMinute, retryAfterMs)
    const time = performance.now()
    begun.push(time)
    try {
      return await call()
    } catch (error) {
      // After more than a minute it does not count any more.
      const at = begun.indexOf(time)
      if (at >= 0 && didNothing(error)) begun.splice(at, 1)
      throw error
    }
  }
  return { availableIn, count }
}

function limitReached(code: string, perMinute: number, retryAfterMs: number): TokenError {
  return new TokenError(`the limit of ${perMinute} in a minute is reached`, {
    kind: 'transient',
    scope: 'environment',
    code,
    retryAfterMs,
    sent: false,
  })
}

function didNothing(error: unknown): boolean {
  return error instanceof TokenError && (!error.sent || error.kind !== 'transient')
}

type Breaker = <T>(call: Call<T>) => Promise<T>

function createBreakers() {
  const all = new Map<string, Breaker>()
  const breaker = (key: string, request: TokenError['request']): Breaker => {
    const found = all.get(key) ?? createBreaker(request)
    all.set(key, found)
    return found
  }
  return {
    close: () => all.clear(),
    pass: async <T>(
      kind: 'list' | 'text' | 'mint' | 'revoke',
      organization: string,
      call: Call<T>,
    ): Promise<T> => {
      const login = breaker('login', 'login')
      const lookUp = breaker(`organizations/${organization}`, 'organizations')
      const own = breaker(`${kind}/${organization}`, undefined)
      return login(() => lookUp(() => own(call)))
    },
  }
}

/** Opened by failures of this one request: about others a call through it says nothing. */
function createBreaker(request: TokenError['request']): Breaker {
  const opens = (error: unknown): error is TokenError =>
    isOutage(error) && error.sent === (request === undefined) && error.request === request
  const breaker = circuitBreaker(handleWhen(opens), {
    breaker: new ConsecutiveBreaker(3),
    halfOpenAfter: new ExponentialBackoff({ initialDelay: 1000, maxDelay: 5000 }),
  })
  let last: { error: TokenError; until: number } | undefined
  const rejectWhilePaused = async <T>(call: Call<T>): Promise<T> => {
    if (last !== undefined && performance.now() < last.until) throw last.error
    try {
      return await call()
    } catch (error) {
      if (opens(error)) {
        const pauseMs = Math.min(error.retryAfterMs ?? 0, longestPauseMs)
        last = { error: changed(error, { sent: false }), until: performance.now() + pauseMs }
      }
      throw error
    }
  }
  return call =>
    breaker
      .execute(() => rejectWhilePaused(call))
      .catch(error => {
        throw error instanceof BrokenCircuitError && last !== undefined ? last.error : error
      })
}

function isOutage(error: unknown): error is TokenError {
  return error instanceof TokenError && error.kind === 'transient' && error.code !== 'aborted'
}

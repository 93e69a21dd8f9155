import {
  BrokenCircuitError,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleWhen,
} from 'cockatiel'
import PQueue from 'p-queue'
import { TokenError, type TokenIssuer } from './registry-token.ts'

const minute = 60_000
const revokesPerMinute = 120

/**
 * The same issuer behind guards, one set for the whole process: a breaker that opens after three
 * failures of the environment in a row and lets one call through again after 1 to 5 s; the time
 * that the environment itself asked for (429); and limits on how many tokens are minted and revoked
 * in a minute, so that no fault of ours can flood the environment with permanent tokens, or take
 * all of them away at once.
 */
export function guardIssuer(
  issuer: TokenIssuer & { onCredentialChange(listener: () => void): void },
  limits: { mintsPerMinute: number },
): TokenIssuer {
  const breaker = circuitBreaker(handleWhen(isEnvironmentFailure), {
    breaker: new ConsecutiveBreaker(3),
    halfOpenAfter: new ExponentialBackoff({ initialDelay: 1000, maxDelay: 5000 }),
  })
  const mints = perMinute(limits.mintsPerMinute)
  const revokes = perMinute(revokesPerMinute)

  const patience = createPatience(issuer.onCredentialChange)
  const guarded = <T>(call: () => Promise<T>): Promise<T> =>
    breaker
      .execute(() => patience(call))
      .catch(error => {
        throw error instanceof BrokenCircuitError ? unreachable() : error
      })
  return {
    list: (organization, signal) => guarded(() => issuer.list(organization, signal)),
    // Asks the registry alone, whose troubles need not keep anybody from minting.
    accepts: issuer.accepts,
    mint: (organization, description, signal) =>
      mints.add(() => guarded(() => issuer.mint(organization, description, signal)), { signal }),
    revoke: (organization, id, signal) =>
      revokes.add(() => guarded(() => issuer.revoke(organization, id, signal)), { signal }),
  }
}

/**
 * Asks nothing for as long as the environment asked not to be asked; the same error answers. With
 * another credential it is another question.
 */
function createPatience(onCredentialChange: (listener: () => void) => void) {
  let told: { error: TokenError; until: number } | undefined
  onCredentialChange(() => {
    told = undefined
  })
  return async <T>(call: () => Promise<T>): Promise<T> => {
    if (told !== undefined && performance.now() < told.until) throw told.error
    try {
      return await call()
    } catch (error) {
      const ms = isEnvironmentFailure(error) && error.retryAfterMs
      if (ms) told = { error, until: performance.now() + ms }
      throw error
    }
  }
}

function perMinute(count: number): PQueue {
  return new PQueue({ interval: minute, intervalCap: count, strict: true })
}

function isEnvironmentFailure(error: unknown): error is TokenError {
  return error instanceof TokenError && error.kind === 'transient' && error.scope === 'environment'
}

function unreachable(): TokenError {
  return new TokenError('the Bluemix environment does not answer', {
    kind: 'transient',
    scope: 'environment',
    code: 'environment_unreachable',
  })
}

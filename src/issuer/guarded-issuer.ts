import {
  BrokenCircuitError,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleWhen,
} from 'cockatiel'
import PQueue from 'p-queue'
import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'
import { TokenError, type TokenIssuer } from './issuer.ts'

const minute = 60_000
const revokesPerMinute = 120
/** A pause that the environment asks for is not kept for longer. */
const longestPauseMs = 300_000

/**
 * The same issuer behind guards, one set for the whole process: limits on how many tokens are minted
 * and revoked in a minute, so that no fault of ours can flood the environment with permanent tokens,
 * or take all of them away at once; and a gate for each kind of request, which a failure of the
 * environment closes for the calls that need that kind:
 *
 * | request that failed       | closed for                                             |
 * |---------------------------|--------------------------------------------------------|
 * | login, discovery          | every call                                             |
 * | organization look-up      | calls for that organization                            |
 * | list, mint, revoke        | the same call for the same organization                |
 *
 * A gate closes after three failures in a row and lets one call through again after 1 to 5 s; or
 * for the time that the environment asks for (429). Another credential opens all of them.
 */
export function guardIssuer(
  issuer: TokenIssuer & { onCredentialChange(listener: () => void): void },
  limits: { mintsPerMinute: number },
): TokenIssuer {
  const mints = perMinute(limits.mintsPerMinute)
  const revokes = perMinute(revokesPerMinute)
  const gates = createGates()
  issuer.onCredentialChange(gates.open)
  return {
    list: (organization, signal) =>
      gates.pass('list', organization, () => issuer.list(organization, signal)),
    // Asks the registry alone, whose troubles need not keep anybody from minting.
    accepts: issuer.accepts,
    mint: (organization, description, signal) =>
      mints.add(
        () =>
          gates.pass('mint', organization, () => issuer.mint(organization, description, signal)),
        { signal },
      ),
    revoke: (organization, id, signal) =>
      revokes.add(
        () => gates.pass('revoke', organization, () => issuer.revoke(organization, id, signal)),
        { signal },
      ),
  }
}

type Call<T> = () => Promise<T>
type Gate = <T>(call: Call<T>) => Promise<T>

function createGates() {
  const all = new Map<string, Gate>()
  const gate = (key: string, request: TokenError['request']): Gate => {
    const found = all.get(key) ?? createGate(request)
    all.set(key, found)
    return found
  }
  return {
    open: () => all.clear(),
    pass: async <T>(kind: 'list' | 'mint' | 'revoke', organization: string, call: Call<T>) => {
      const login = gate('login', 'login')
      const lookUp = gate(`organizations/${organization}`, 'organizations')
      const own = gate(`${kind}/${organization}`, undefined)
      return login(() => lookUp(() => own(call)))
    },
  }
}

/** Closed by failures of this one request: of others a call through it says nothing. */
function createGate(request: TokenError['request']): Gate {
  const closes = (error: unknown): error is TokenError =>
    isEnvironmentFailure(error) && error.request === request
  const breaker = circuitBreaker(handleWhen(closes), {
    breaker: new ConsecutiveBreaker(3),
    halfOpenAfter: new ExponentialBackoff({ initialDelay: 1000, maxDelay: 5000 }),
  })
  let told: { error: TokenError; until: number } | undefined
  const patient = async <T>(call: Call<T>): Promise<T> => {
    if (told !== undefined && performance.now() < told.until) throw told.error
    try {
      return await call()
    } catch (error) {
      const ms = closes(error) && error.retryAfterMs
      if (ms) told = { error, until: performance.now() + Math.min(ms, longestPauseMs) }
      throw error
    }
  }
  return call =>
    breaker
      .execute(() => patient(call))
      .catch(error => {
        throw error instanceof BrokenCircuitError ? unreachable(request) : error
      })
}

function perMinute(count: number): PQueue {
  return new PQueue({ interval: minute, intervalCap: count, strict: true })
}

function isEnvironmentFailure(error: unknown): error is TokenError {
  return error instanceof TokenError && error.kind === 'transient' && error.scope === 'environment'
}

function unreachable(request: TokenError['request']): TokenError {
  return new TokenError('the Bluemix environment does not answer', {
    kind: 'transient',
    scope: 'environment',
    code: 'environment_unreachable',
    request,
  })
}

/**
 * The same issuer; where the environment cannot list its tokens, that is said once in the log and
 * for as long as it is so in a metric: a token of which the answer was lost is then not found again.
 */
export function reportListing(
  issuer: TokenIssuer,
  { logger, metrics }: { logger: Logger; metrics: Registry },
): TokenIssuer {
  const gauge = new Gauge({
    name: 'pullpass_environment_cannot_list',
    help: '1 where the environment cannot list tokens, so that lost ones are not found again',
    registers: [metrics],
  })
  let told = false
  return {
    ...issuer,
    list: async (organization, signal) => {
      const listed = await issuer.list(organization, signal)
      const cannot = listed === 'unsupported'
      gauge.set(Number(cannot))
      if (cannot && !told) {
        logger.warn('the environment cannot list tokens: lost ones are not found again')
      }
      told = cannot
      return listed
    },
  }
}

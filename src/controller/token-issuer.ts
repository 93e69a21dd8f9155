import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'
import { type Issuer, type ListedToken, type MintedToken, TokenError } from '../issuer/issuer.ts'

/** The issuer as the controller used it before the inventory; goes with its last caller. */
export interface TokenIssuer {
  mint(organization: string, description: string, signal: AbortSignal): Promise<MintedToken>
  list(organization: string, signal: AbortSignal): Promise<ListedToken[] | 'unsupported'>
  revoke(organization: string, id: string, signal: AbortSignal): Promise<void>
  accepts(text: string, signal: AbortSignal): Promise<boolean>
}

export function tokenIssuer(issuer: Issuer): TokenIssuer {
  return {
    mint: (organization, description, signal) =>
      withinLimits(
        () => issuer.mint({ organization, description, permanent: true }, signal),
        signal,
      ),
    list: async (organization, signal) => {
      const tokens: ListedToken[] = []
      const listed = await issuer.list(organization, token => tokens.push(token), signal)
      return listed === 'unsupported' ? listed : tokens
    },
    revoke: (organization, id, signal) =>
      withinLimits(() => issuer.revoke(organization, id, signal), signal),
    accepts: issuer.accepts,
  }
}

async function withinLimits<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (;;) {
    try {
      return await call()
    } catch (error) {
      const isLimit = error instanceof TokenError && /^(mint|revoke)_limit$/.test(error.code)
      if (!isLimit || signal.aborted) throw error
      await sleep(error.retryAfterMs ?? 1000, undefined, { signal }).catch(() => {})
    }
  }
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

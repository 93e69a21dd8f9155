import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'
import type { TokenIssuer } from './registry-token.ts'

/**
 * The same issuer; where the environment cannot list its tokens, that is said once in the log and
 * for as long as it is so in a metric: a token of which the answer was lost is then not found again.
 */
export function tellListing(
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

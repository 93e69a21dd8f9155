import type { Logger } from 'pino'
import type { PullSecretIndex } from '../pull-secret/pull-secret-index.ts'

/**
 * Says, once for each, which opted-in namespaces hold a Secret of our name that somebody else made.
 * The returned function looks at one namespace; it is for all of them at the start, and for each change.
 */
export function createForeignReport(options: {
  index: PullSecretIndex
  logger: Logger
}): (namespace: string) => void {
  const { index, logger } = options
  const told = new Set<string>()
  return namespace => {
    const secret = index.secrets.get(namespace)
    const isForeign = secret?.ours === false && index.namespaces.get(namespace) !== undefined
    if (isForeign && !told.has(namespace)) {
      logger.warn({ namespace }, 'the Secret is not one that pullpass made, leaving it alone')
    }
    if (isForeign) told.add(namespace)
    else told.delete(namespace)
  }
}

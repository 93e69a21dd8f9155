import type { Logger } from 'pino'
import type { TellProblem } from '../kubernetes/problem-events.ts'
import type { PullSecretRules } from '../pull-secret/pull-secret.ts'
import { eventReason, type Verdict } from './refusal.ts'

export type TellRefusal = (
  namespace: string,
  refusal: Pick<Verdict, 'code' | 'message' | 'isTheirs'>,
) => void

/** In the log, and where its owner can mend it, as an event in the namespace. */
export function createTellRefusal(options: {
  rules: PullSecretRules
  tellProblem: TellProblem
  logger: Logger
}): TellRefusal {
  const { rules, tellProblem, logger } = options
  return (namespace, { code, message, isTheirs }) => {
    logger.warn({ namespace, code }, `no pull secret: ${message}`)
    if (!isTheirs) return
    const secret = { kind: 'Secret', name: rules.secretName, namespace }
    void tellProblem(secret, eventReason(code), message)
  }
}

import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import type { TellProblem } from '../kubernetes/problem-events.ts'
import type { PullSecretRules } from '../pull-secret/pull-secret.ts'
import { eventReason, type Verdict } from './refusal.ts'

export type TellRefusal = (
  namespace: string,
  refusal: Pick<Verdict, 'code' | 'message' | 'isTheirs'>,
) => void

/** So many texts of one namespace are written within ten minutes, and each of them once. */
const mostTexts = 5
const periodMs = 600_000
const mostNamespaces = 10_000

/** In the log, and where its owner can act on it, as an event in the namespace. */
export function createTellRefusal(options: {
  rules: PullSecretRules
  tellProblem: TellProblem
  logger: Logger
}): TellRefusal {
  const { rules, tellProblem, logger } = options
  const isAllowed = createLimit()
  return (namespace, { code, message, isTheirs }) => {
    if (!isAllowed(namespace, message)) return
    logger.warn({ namespace, code }, `no pull secret: ${message}`)
    if (!isTheirs) return
    const secret = { kind: 'Secret', name: rules.secretName, namespace }
    void tellProblem(secret, eventReason(code), message)
  }
}

function createLimit(): (namespace: string, text: string) => boolean {
  const written = new LRUCache<string, Map<string, number>>({ max: mostNamespaces })
  return (namespace, text) => {
    const now = performance.now()
    const texts = written.get(namespace) ?? new Map<string, number>()
    for (const [each, at] of texts) if (at < now - periodMs) texts.delete(each)
    if (texts.has(text) || texts.size >= mostTexts) return false
    written.set(namespace, texts.set(text, now))
    return true
  }
}

import type { Logger } from 'pino'
import {
  type Decision,
  decide,
  decideByNamespace,
  decideByServiceAccount,
} from './admission/decision.ts'
import { addPullSecret } from './admission/patch.ts'
import { type AdmissionAnswer, allowed, patched } from './admission/response.ts'
import type { Review } from './admission/review.ts'
import { clip } from './clip.ts'
import type { IsOptedIn } from './pull-secret/opted-in.ts'
import type { PullSecretRules } from './pull-secret/pull-secret.ts'
import type { PullSecretIndex } from './pull-secret/pull-secret-index.ts'
import type { SecretMissing } from './pull-secret/secret-missing.ts'

export interface MutatePodOptions {
  index: PullSecretIndex
  secretMissing: SecretMissing
  /** By the watch or else by a live read: a review is never believed in this. */
  isOptedIn: IsOptedIn
  rules: PullSecretRules
  logger: Logger
}

export type MutatePod = (
  review: Review,
  budgetMs: number,
) => Promise<{ answer: AdmissionAnswer; outcome: string }>

/**
 * The whole admission of a pod: what the review alone decides, what its namespace and its
 * ServiceAccount allow, whether the Secret is there, and the answer. A pod that was not given the
 * reference never heals, so it gets it even where the Secret is still to come.
 */
export function createMutatePod(options: MutatePodOptions): MutatePod {
  const { index, isOptedIn, secretMissing, rules, logger } = options
  return async (review, budgetMs) => {
    const { uid, namespace, name, serviceAccount } = review
    const deadline = performance.now() + budgetMs
    let decision = decide(review, rules)
    if (decision.action !== 'leave') {
      decision = decideByNamespace(decision, await isOptedIn(namespace, budgetMs / 2))
      const mountable = index.serviceAccounts.get(`${namespace}/${serviceAccount}`)
      decision = decideByServiceAccount(decision, mountable, rules.secretName)
    }
    const missing =
      decision.action === 'leave'
        ? undefined
        : await secretMissing(review, deadline - performance.now())
    const outcome = outcomeOf(decision, missing)
    const pod = name && clip(name)
    logger.info({ uid, namespace, pod, dryRun: review.dryRun, outcome, missing }, 'review')
    return { answer: answerTo(review, decision, missing, rules.secretName), outcome }
  }
}

function outcomeOf(decision: Decision, missing: string | undefined): string {
  if (decision.action === 'leave') return decision.reason
  const deed = decision.action === 'inject' ? 'injected' : 'named_already'
  return missing === undefined ? deed : `${deed}_without_secret`
}

function answerTo(
  { uid, pod }: Review,
  decision: Decision,
  missing: string | undefined,
  secretName: string,
): AdmissionAnswer {
  if (decision.action === 'leave') {
    return allowed(
      uid,
      decision,
      decision.reason === 'mountable_secrets_enforced'
        ? [`pullpass: the ServiceAccount does not let pods use the pull secret ${secretName}`]
        : [],
    )
  }
  const warnings = missing === undefined ? [] : [`pull secret ${secretName}: ${missing}`]
  return decision.action === 'inject'
    ? patched(uid, decision, addPullSecret(pod, secretName), warnings)
    : allowed(uid, decision, warnings)
}

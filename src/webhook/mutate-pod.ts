import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { clip } from '../failure.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import type { IsOptedIn, SecretMissing } from './await-secret.ts'
import {
  type Decision,
  type DecisionRules,
  decide,
  decideByNamespace,
  decideByServiceAccount,
  outcomeOf,
} from './decision.ts'
import {
  createGuard,
  createReportError,
  type Guard,
  longestUid,
  type Stage,
  stages,
} from './guard.ts'
import { createLineLimit } from './line-limit.ts'
import { type AddOperation, type AdmissionAnswer, addPullSecret, patched } from './response.ts'
import type { Review } from './review.ts'

interface MutatePodDependencies {
  index: { serviceAccounts: PullSecretIndex['serviceAccounts'] }
  secretMissing: SecretMissing
  /** By the watch or a live read: anybody can send a review. */
  isOptedIn: IsOptedIn
  logger: Logger
  metrics: Registry
}

interface MutatedPod {
  answer: AdmissionAnswer
  /** One of `outcomes`. */
  outcome: string
}

/** Answers a review within `budgetMs`. Never rejects after the decision. */
export type MutatePod = (review: Review, budgetMs: number) => Promise<MutatedPod>

/** Log lines of reviews that add a reference; a client may send them in masses. */
const reviewLinesPerSecond = 100

/** What is kept of a review while it waits. The pod itself may be large. */
interface Pod {
  uid: string
  namespace: string
  name: string
  dryRun: boolean
  serviceAccount: string
  /** What the review alone decides. */
  decided: Decision
  /** The patch, made before anything can fail. */
  operations: AddOperation[]
  deadline: number
}

interface Answering {
  dependencies: MutatePodDependencies
  rules: DecisionRules
  guard: Guard
  mayWriteLine: () => boolean
}

/**
 * The whole admission of a pod: review -> decision -> namespace and ServiceAccount -> Secret ready? ->
 * patch -> answer. `imagePullSecrets` cannot be added later, so the patch is made right after the
 * decision, and no later failure takes it away:
 *
 * | step            | where it throws, rejects, hangs or returns a wrong type                 |
 * |-----------------|-------------------------------------------------------------------------|
 * | namespace       | counts as opted in: the API server asks about opted-in namespaces only  |
 * | service_account | counts as one that does not limit its Secrets                           |
 * | secret          | the patch without waiting                                               |
 * | log             | the patch without a line                                                |
 *
 * Each failure is a warning in the answer, and counted.
 */
export function createMutatePod(
  dependencies: MutatePodDependencies,
  rules: DecisionRules,
): MutatePod {
  const { logger, metrics } = dependencies
  const reportError = createReportError({ logger, metrics })
  const mayWriteLine = createLineLimit(reviewLinesPerSecond)
  return (review, budgetMs) => {
    const deadline = performance.now() + budgetMs
    const decided = decide(review, rules)
    const operations =
      decided.action === 'inject' ? addPullSecret(review.pod, rules.secretName) : []
    const { uid, namespace, name, dryRun, serviceAccount } = review
    const pod = { uid, namespace, name, dryRun, serviceAccount, decided, operations, deadline }
    const guard = createGuard((stage, error) => reportError(pod, stage, error))
    return answerPod(pod, { dependencies, rules, guard, mayWriteLine })
  }
}

async function answerPod(pod: Pod, answering: Answering): Promise<MutatedPod> {
  const decision = await decideByCluster(pod, answering)
  const missing = decision.action === 'leave' ? undefined : await findMissing(pod, answering)
  const outcome = outcomeOf(decision, missing === undefined)
  writeLine(pod, { decision, missing, outcome }, answering)
  const { guard, rules } = answering
  const warnings = warningsOf({ decision, missing, failed: guard.failed }, rules.secretName)
  const operations = decision.action === 'inject' ? pod.operations : []
  return { answer: patched(pod.uid, decision, operations, warnings), outcome }
}

/** The decision, given what the cluster says about the pod's namespace and ServiceAccount. */
async function decideByCluster(
  { namespace, serviceAccount, decided, deadline }: Pod,
  { dependencies, guard, rules }: Answering,
): Promise<Decision> {
  const { index, isOptedIn } = dependencies
  if (decided.action === 'leave') return decided
  const halfMs = Math.floor(leftOf(deadline) / 2)
  const optedIn = await guard.inTime('namespace', halfMs, {
    run: ms => isOptedIn(namespace, ms),
    isAnswer: answer => typeof answer === 'boolean',
    otherwise: true,
  })
  const mountable = guard.now('service_account', undefined, () => {
    const names = index.serviceAccounts.get(`${namespace}/${serviceAccount}`)
    if (names !== undefined && !Array.isArray(names)) throw new TypeError('not a list of names')
    return names
  })
  return decideByServiceAccount(decideByNamespace(decided, optedIn), mountable, rules.secretName)
}

/** Why the Secret is not ready, after waiting for it; undefined: it is. */
function findMissing(
  { namespace, dryRun, deadline }: Pod,
  { dependencies, guard }: Answering,
): Promise<string | undefined> {
  const { secretMissing } = dependencies
  return guard.inTime<string | undefined>('secret', leftOf(deadline), {
    run: ms => secretMissing({ namespace, dryRun }, ms),
    isAnswer: answer => answer === undefined || typeof answer === 'string',
    otherwise: 'not checked',
  })
}

interface Found {
  decision: Decision
  missing: string | undefined
}

function writeLine(
  { uid, namespace, name, dryRun }: Pod,
  { decision, missing, outcome }: Found & { outcome: string },
  { dependencies, guard, mayWriteLine }: Answering,
): void {
  const { logger } = dependencies
  guard.now('log', undefined, () => {
    const pod = clip(name)
    const line = { uid: uid.slice(0, longestUid), namespace, pod, dryRun, outcome, missing }
    if (decision.action === 'leave') logger.debug(line, 'review')
    else if (mayWriteLine()) logger.info(line, 'review')
  })
}

function warningsOf(
  { decision, missing, failed }: Found & { failed: Set<Stage> },
  secretName: string,
): string[] {
  if (decision.action === 'leave') {
    return decision.reason === 'mountable_secrets_enforced'
      ? [`pullpass: the ServiceAccount does not let pods use the pull secret ${secretName}`]
      : []
  }
  const errors = [...failed].map(
    stage =>
      `pull secret ${secretName}: internal error in pullpass (${stages[stage]}), see its log`,
  )
  const isKnown = missing !== undefined && !failed.has('secret')
  return isKnown ? [`pull secret ${secretName}: ${missing}`, ...errors] : errors
}

/** Whole milliseconds until the deadline. */
function leftOf(deadline: number): number {
  return Math.max(0, Math.floor(deadline - performance.now()))
}

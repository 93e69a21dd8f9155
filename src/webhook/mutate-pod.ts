import type { Logger } from 'pino'
import { Counter, type Registry } from 'prom-client'
import { clip, framesOf } from '../failure.ts'
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
import { createLineLimit } from './line-limit.ts'
import { type AddOperation, type AdmissionAnswer, addPullSecret, patched } from './response.ts'
import type { Review } from './review.ts'

export interface MutatePodOptions {
  index: Pick<PullSecretIndex, 'serviceAccounts'>
  secretMissing: SecretMissing
  /** By the watch or else by a live read: a review is never believed in this. */
  isOptedIn: IsOptedIn
  rules: DecisionRules
  logger: Logger
  metrics: Registry
}

interface MutatedPod {
  answer: AdmissionAnswer
  /** One of `outcomes`. */
  outcome: string
}

export type MutatePod = (review: Review, budgetMs: number) => Promise<MutatedPod>

/** A step after the decision, and how a pod's owner knows what it looks at. */
const stages = {
  namespace: 'the namespace',
  service_account: 'the ServiceAccount',
  secret: 'the Secret',
  log: 'the log',
} as const
type Stage = keyof typeof stages

/** A step that overruns the time it was given is left behind this much later. */
const overrunMs = 10
/** Enough for the log line of a review: names as long as these are made by attackers. */
const longestUid = 64
/** Lines about internal errors; a failure that every review meets would fill the disk. */
const mostErrorLinesPerSecond = 5
/** One line for each review that adds a reference, but for what somebody sends in masses. */
const mostReviewLinesPerSecond = 100

type Pod = Pick<Review, 'uid' | 'namespace' | 'name' | 'dryRun' | 'serviceAccount'>

interface Decided {
  decision: Decision
  operations: AddOperation[]
}

/**
 * The whole admission of a pod. `imagePullSecrets` cannot be added later, so the patch is computed
 * right after the decision, and nothing that comes after it can take it away:
 *
 * | step            | it throws, rejects, hangs or returns nonsense                           |
 * |-----------------|-------------------------------------------------------------------------|
 * | namespace       | counts as opted in: the API server asks about opted-in namespaces only  |
 * | service_account | counts as one that does not limit its Secrets                           |
 * | secret          | the patch without waiting                                               |
 * | log             | the patch without a line                                                |
 *
 * Each failure is a warning in the answer and a count. The pod itself is not kept while a review
 * waits: it may be large.
 */
export function createMutatePod(options: MutatePodOptions): MutatePod {
  const { rules } = options
  const reportError = createReportError(options)
  const mayWriteLine = createLineLimit(mostReviewLinesPerSecond)
  return (review, budgetMs) => {
    const deadline = performance.now() + budgetMs
    const decision = decide(review, rules)
    const operations =
      decision.action === 'inject' ? addPullSecret(review.pod, rules.secretName) : []
    const { uid, namespace, name, dryRun, serviceAccount } = review
    const pod = { uid, namespace, name, dryRun, serviceAccount }
    const guard = createGuard((stage, error) => reportError(pod, stage, error))
    return answerPod(pod, { decision, operations }, { ...options, guard, deadline, mayWriteLine })
  }
}

type Answering = MutatePodOptions & {
  guard: Guard
  deadline: number
  mayWriteLine: () => boolean
}

/** Never rejects. */
async function answerPod(pod: Pod, decided: Decided, answering: Answering): Promise<MutatedPod> {
  const { guard, rules, logger, mayWriteLine } = answering
  const decision = await decideByCluster(pod, decided.decision, answering)
  const missing = decision.action === 'leave' ? undefined : await findMissing(pod, answering)
  const outcome = outcomeOf(decision, missing === undefined)
  guard.now('log', undefined, () => {
    const { uid, namespace, name, dryRun } = pod
    const line = {
      uid: uid.slice(0, longestUid),
      namespace,
      pod: clip(name),
      dryRun,
      outcome,
      missing,
    }
    if (decision.action === 'leave') logger.debug(line, 'review')
    else if (mayWriteLine()) logger.info(line, 'review')
  })
  const warnings = warningsOf({ decision, missing, failed: guard.failed }, rules.secretName)
  return { answer: patched(pod.uid, decision, operationsOf(decision, decided), warnings), outcome }
}

function operationsOf(decision: Decision, { operations }: Decided): AddOperation[] {
  return decision.action === 'inject' ? operations : []
}

async function decideByCluster(
  { namespace, serviceAccount }: Pod,
  decision: Decision,
  { guard, index, isOptedIn, rules, deadline }: Answering,
): Promise<Decision> {
  if (decision.action === 'leave') return decision
  const halfMs = leftOf(deadline) / 2
  const optedIn = await guard.inTime('namespace', Math.floor(halfMs), {
    run: ms => isOptedIn(namespace, ms),
    isAnswer: answer => typeof answer === 'boolean',
    otherwise: true,
  })
  const mountable = guard.now('service_account', undefined, () => {
    const names = index.serviceAccounts.get(`${namespace}/${serviceAccount}`)
    if (names !== undefined && !Array.isArray(names)) throw new TypeError('not a list of names')
    return names
  })
  return decideByServiceAccount(decideByNamespace(decision, optedIn), mountable, rules.secretName)
}

function findMissing(
  { namespace, dryRun }: Pod,
  { guard, secretMissing, deadline }: Answering,
): Promise<string | undefined> {
  return guard.inTime<string | undefined>('secret', leftOf(deadline), {
    run: ms => secretMissing({ namespace, dryRun }, ms),
    isAnswer: answer => answer === undefined || typeof answer === 'string',
    otherwise: 'not checked',
  })
}

function warningsOf(
  found: { decision: Decision; missing: string | undefined; failed: Set<Stage> },
  secretName: string,
): string[] {
  const { decision, missing, failed } = found
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

interface Step<T> {
  run(ms: number): Promise<T>
  isAnswer(answer: T): boolean
  otherwise: T
}

/** Runs steps that may fail in any way; `failed` are those that did. */
interface Guard {
  failed: Set<Stage>
  now<T>(stage: Stage, otherwise: T, run: () => T): T
  inTime<T>(stage: Stage, ms: number, step: Step<T>): Promise<T>
}

function createGuard(report: (stage: Stage, error: unknown) => void): Guard {
  const failed = new Set<Stage>()
  const fail = <T>(stage: Stage, error: unknown, otherwise: T): T => {
    failed.add(stage)
    report(stage, error)
    return otherwise
  }
  return {
    failed,
    now: (stage, otherwise, run) => {
      try {
        return run()
      } catch (error) {
        return fail(stage, error, otherwise)
      }
    },
    inTime: async (stage, ms, { run, isAnswer, otherwise }) => {
      let timer: NodeJS.Timeout | undefined
      try {
        const answer = await Promise.race([
          run(ms),
          new Promise<never>((_resolve, reject) => {
            timer = setTimeout(() => reject(new Error('no answer in time')), ms + overrunMs)
          }),
        ])
        return isAnswer(answer) ? answer : fail(stage, new TypeError('nonsense'), otherwise)
      } catch (error) {
        return fail(stage, error, otherwise)
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

/** Counts and logs what failed after a decision; never throws, whatever logger and counter do. */
function createReportError({ logger, metrics }: Pick<MutatePodOptions, 'logger' | 'metrics'>) {
  const errors = new Counter({
    name: 'pullpass_admission_internal_errors_total',
    help: 'Internal errors after the decision about a pod, by step; the pod was answered all the same',
    labelNames: ['stage'],
    registers: [metrics],
  })
  for (const stage of Object.keys(stages)) errors.inc({ stage }, 0)
  const mayWrite = createLineLimit(mostErrorLinesPerSecond)
  return ({ uid, namespace }: Pod, stage: Stage, error: unknown): void => {
    try {
      errors.inc({ stage })
      if (!mayWrite()) return
      const at = framesOf(error)
      logger.error(
        { uid: uid.slice(0, longestUid), namespace, stage, at },
        'internal error in a review',
      )
    } catch {
      // The answer matters more than its count or its line.
    }
  }
}

/** In whole milliseconds: Node's timers throw for a fraction. */
function leftOf(deadline: number): number {
  const left = Math.floor(deadline - performance.now())
  return Math.max(left, 0)
}

import type { Logger } from 'pino'
import { Counter, type Registry } from 'prom-client'
import { framesOf } from '../failure.ts'
import { inTime } from '../time-limit.ts'
import { createLineLimit } from './line-limit.ts'

/** The steps after the decision, and what each looks at, in the words of warnings. */
export const stages = {
  namespace: 'the namespace',
  service_account: 'the ServiceAccount',
  secret: 'the Secret',
  log: 'the log',
} as const
export type Stage = keyof typeof stages

interface Step<T> {
  run(ms: number): Promise<T>
  isAnswer(answer: T): boolean
  /** The answer where the step fails. */
  otherwise: T
}

/** Runs the steps of one review. A step may throw, reject, hang or return a wrong type. */
export interface Guard {
  /** The stages that failed so far. */
  failed: Set<Stage>
  now<T>(stage: Stage, otherwise: T, run: () => T): T
  inTime<T>(stage: Stage, ms: number, step: Step<T>): Promise<T>
}

/** A step ends this much later than the time it was given. */
const overrunMs = 10

export function createGuard(report: (stage: Stage, error: unknown) => void): Guard {
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
      try {
        const answer = await inTime(run(ms), { ms: ms + overrunMs })
        return isAnswer(answer) ? answer : fail(stage, new TypeError('wrong type'), otherwise)
      } catch (error) {
        return fail(stage, error, otherwise)
      }
    },
  }
}

/** Enough for a log line: only attackers send longer ones. */
export const longestUid = 64
/** A failure that every review meets would fill the disk with log lines. */
const errorLinesPerSecond = 5

/** Counts and logs what failed after a decision. Never throws, also where logger and counter do. */
export function createReportError({ logger, metrics }: { logger: Logger; metrics: Registry }) {
  const errors = new Counter({
    name: 'pullpass_admission_internal_errors_total',
    help: 'Internal errors after the decision about a pod, by step; the pod gets its answer nevertheless',
    labelNames: ['stage'],
    registers: [metrics],
  })
  for (const stage of Object.keys(stages)) errors.inc({ stage }, 0)
  const mayWriteLine = createLineLimit(errorLinesPerSecond)
  return (pod: { uid: string; namespace: string }, stage: Stage, error: unknown): void => {
    const { uid, namespace } = pod
    try {
      errors.inc({ stage })
      if (!mayWriteLine()) return
      const line = { uid: uid.slice(0, longestUid), namespace, stage, at: framesOf(error) }
      logger.error(line, 'internal error in a review')
    } catch {
      // The answer matters more than its count or its line.
    }
  }
}

import { createHash } from 'node:crypto'
import { V1MicroTime } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { asKubernetesError, type KubernetesClient } from './client.ts'

/** What an event is about: an object of core/v1 in the namespace. It need not exist. */
interface Regarding {
  kind: string
  name: string
  namespace: string
}

/** Never rejects: an event that cannot be written is told in the log. */
export type ReportProblem = (regarding: Regarding, reason: string, note: string) => Promise<void>

const longestNote = 1024
const againMs = 600_000

/**
 * Writes a warning event once: its name is made from what it says, so that repeating it, also by
 * another replica, finds it there. Events end by themselves after an hour (kube-apiserver
 * --event-ttl); one of a problem that lasts is then written again.
 */
export function createReportProblem(options: {
  client: Pick<KubernetesClient, 'events'>
  identity: string
  logger: Logger
}): ReportProblem {
  const { client, identity, logger } = options
  return async (regarding, reason, note) => {
    const { namespace } = regarding
    const text = note.slice(0, longestNote)
    const digest = createHash('sha256').update(JSON.stringify([regarding, reason, text]))
    const body = {
      metadata: { namespace, name: `pullpass.${digest.digest('hex').slice(0, 16)}` },
      eventTime: new V1MicroTime(),
      type: 'Warning',
      reason,
      action: 'Keep',
      note: text,
      regarding: { apiVersion: 'v1', ...regarding },
      reportingController: 'pullpass.io/pullpass',
      reportingInstance: identity.slice(0, 128),
    }
    try {
      await client.events.createNamespacedEvent({ namespace, body })
    } catch (error) {
      const failure = asKubernetesError(`create an event in ${namespace}`, error)
      if (failure.status !== 409) logger.warn({ problem: failure.message }, 'event not written')
    }
  }
}

/**
 * Tells of every problem that is there at two looks in a row, so that a passing one makes no event,
 * and again every ten minutes while it lasts. Returns how to end it.
 */
export function watchProblems(options: {
  problems: () => string[]
  tell: (note: string) => Promise<void>
  everyMs?: number
}): () => void {
  const { problems, tell, everyMs = 5000 } = options
  /** At how many looks in a row each problem was there by now. */
  let seen = new Map<string, number>()
  const look = () => {
    seen = new Map(problems().map(note => [note, (seen.get(note) ?? 0) + 1]))
    const period = Math.ceil(againMs / everyMs)
    for (const [note, looks] of seen) if (looks % period === 2 % period) void tell(note)
  }
  const timer = setInterval(look, everyMs).unref()
  return () => clearInterval(timer)
}

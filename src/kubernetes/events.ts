import { createHash } from 'node:crypto'
import { V1MicroTime } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { type KubernetesClient, unlessStatus } from './client.ts'

/** What an event is about: an object of core/v1 in the namespace. It need not exist. */
interface Regarding {
  kind: string
  name: string
  namespace: string
}

/** Never rejects: a failure is logged. */
export type ReportProblem = (regarding: Regarding, reason: string, note: string) => Promise<void>

const longestNote = 1024
const againMs = 600_000

/**
 * Writes a warning event once: its name is a hash of its content, so every replica that repeats it
 * finds it there. The API server deletes events after an hour (--event-ttl); the event of a problem
 * that lasts is then written again.
 */
export function createReportProblem(
  { client, logger }: { client: KubernetesClient; logger: Logger },
  { identity }: { identity: string },
): ReportProblem {
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
      const created = client.events.createNamespacedEvent({ namespace, body })
      await unlessStatus([409], `create an event in ${namespace}`, created)
    } catch (error) {
      logger.warn({ problem: (error as Error).message }, 'cannot create an event')
    }
  }
}

/** Something that an event says. */
interface Problem {
  code: string
  message: string
}

/**
 * Reports each problem that two checks in a row find, so that a short one makes no event, and again
 * every ten minutes while it lasts. Returns a function that ends it.
 */
export function watchProblems(
  { problems, report }: { problems: () => Problem[]; report: (problem: Problem) => Promise<void> },
  { everyMs = 5000 }: { everyMs?: number } = {},
): () => void {
  /** How many checks in a row have found each problem. */
  let found = new Map<string, number>()
  const check = () => {
    const now = new Map(problems().map(problem => [textOf(problem), problem]))
    found = new Map([...now.keys()].map(text => [text, (found.get(text) ?? 0) + 1]))
    const period = Math.ceil(againMs / everyMs)
    for (const [text, checks] of found) {
      const problem = now.get(text)
      if (problem !== undefined && checks % period === 2 % period) void report(problem)
    }
  }
  const timer = setInterval(check, everyMs).unref()
  return () => clearInterval(timer)
}

/** Without times: a text that says when the next try comes is the same problem all the time. */
function textOf({ message }: Problem): string {
  return message.replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '')
}

/** `organization_not_found` as the reason of an event: `OrganizationNotFound`. */
export function eventReason(code: string): string {
  return code.replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

import { LRUCache } from 'lru-cache'
import PQueue from 'p-queue'
import type { FailureStore } from '../failure.ts'
import { isUsable, type PullSecretIndex } from '../pull-secret/cache.ts'
import { notManaged } from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'
import { inTime, withinLimit } from '../time-limit.ts'

export type IsOptedIn = (namespace: string, leftMs: number) => Promise<boolean>

/** A namespace that turned out not to be opted in is not read again for this long. */
const rememberMs = 1000
const mostRemembered = 500
/** Live reads at a time, waiting for one of these places, and how many begin in an interval. */
const mostReads = 10
const mostWaiting = 40
const readsInInterval = 3
const intervalMs = 200
/** A read that takes longer than any review gives its place to another. */
const longestReadMs = 30_000

/**
 * Whether a namespace is opted in. The API server asks only about pods of namespaces that it knows
 * as opted in, but anybody who reaches the port may send any review, so its namespace is looked at:
 *
 * | what is known                                      | opted in                                  |
 * |----------------------------------------------------|-------------------------------------------|
 * | the cache of the watch has it                      | yes                                       |
 * | a live read of the last second found it was not    | no                                        |
 * | a live read, done within `leftMs`                  | what it finds, also put into the cache    |
 * | a live read that fails, or is not done in time     | yes: the API server's own choice stands   |
 * | too many reads wait: none is begun                 | yes, the same                             |
 *
 * A "yes" of the last two rows is harmless where the review is forged: the answer changes nothing,
 * and without the cache knowing the namespace nothing is asked of the controller. A read that was
 * begun is finished, for the next review, however little time this one had. The bounds are those of
 * the API server's patience: forged names cost it 15 reads a second.
 */
export function createIsOptedIn({ index, store }: OptedInDependencies): IsOptedIn {
  const queue = new PQueue({
    concurrency: mostReads,
    interval: intervalMs,
    intervalCap: readsInInterval,
    timeout: longestReadMs,
  })
  const notOptedIn = new LRUCache<string, true>({ max: mostRemembered, ttl: rememberMs })
  const reads = new Map<string, Promise<boolean>>()

  async function read(name: string): Promise<boolean> {
    try {
      const namespace = await queue.add(() => store.readNamespace(name))
      if (namespace !== undefined) index.namespaces.upsert(namespace)
      if (namespace !== undefined && index.readNamespace(namespace) !== undefined) return true
      notOptedIn.set(name, true)
      return false
    } catch {
      return true
    } finally {
      reads.delete(name)
    }
  }
  return async (namespace, leftMs) => {
    if (index.namespaces.get(namespace) !== undefined) return true
    if (notOptedIn.has(namespace)) return false
    let reading = reads.get(namespace)
    if (reading === undefined) {
      if (queue.size >= mostWaiting) return true
      reading = read(namespace)
      reads.set(namespace, reading)
    }
    return inTime(reading, { ms: leftMs }).catch(() => true)
  }
}

interface OptedInDependencies {
  index: PullSecretIndex
  store: { readNamespace: SecretStore['readNamespace'] }
}

interface SecretMissingDependencies {
  index: PullSecretIndex
  controller: SecretController
  failures: FailureChanges
}

interface FailureChanges {
  onChange: FailureStore['onChange']
}

/** What admission needs of the controller. */
export interface SecretController {
  /** A pod waits for this namespace's Secret: it goes first. Nothing where another replica leads. */
  want(namespace: string): void
  /** What keeps the namespace from its Secret, as far as this replica knows; for people. */
  failure(namespace: string): { message: string } | undefined
}

/** Resolves to what is in the way of a pod's pull, in words for people; undefined: nothing is. */
export type SecretMissing = (
  of: { namespace: string; dryRun: boolean },
  leftMs: number,
) => Promise<string | undefined>

/** A namespace that was waited for in vain makes no other pod wait, for this long. */
const vainMs = 10_000
const mostVain = 1000
/** Reviews that wait at a time; each holds a connection. The others are answered at once. */
const mostReviewsWaiting = 200

/**
 * Where the Secret is not there, asks the controller for it and waits: at most `waitMs`, never beyond
 * what is left for the review, and only until a failure is known:
 *
 * | the Secret                         | failure known | warning                                         |
 * |------------------------------------|---------------|-------------------------------------------------|
 * | managed by pullpass, and usable    | any           | none                                            |
 * | not managed by pullpass            | any           | that                                            |
 * | absent or damaged                  | yes           | the failure, at once                            |
 * | absent or damaged                  | no            | after the wait: see the events of the namespace |
 *
 * Failures of the environment and of organizations are known to each replica, those of a namespace to
 * the leader only; so the last row is also that of another replica. A dry run asks for nothing. A
 * namespace that the cache does not know as opted in is not asked for and not waited for: a forged
 * review leaves nothing behind.
 */
export function createSecretMissing(
  { index, controller, failures }: SecretMissingDependencies,
  { waitMs }: { waitMs: number },
): SecretMissing {
  const vain = new LRUCache<string, true>({ max: mostVain, ttl: vainMs })
  const reason = (namespace: string) => controller.failure(namespace)?.message
  let waiting = 0
  async function appears(namespace: string, leftMs: number): Promise<boolean> {
    if (index.namespaces.get(namespace) === undefined) return false
    controller.want(namespace)
    const isHopeless = reason(namespace) !== undefined || vain.has(namespace)
    if (isHopeless || waiting >= mostReviewsWaiting) return false
    waiting += 1
    const ms = Math.max(0, Math.floor(Math.min(waitMs, leftMs)))
    const isOver = () => reason(namespace) !== undefined
    try {
      const isThere = await untilOver({ ms, isOver, failures }, signal =>
        index.whenUsable(namespace, signal),
      )
      // A review in a hurry says nothing about how long the Secret takes.
      if (!isThere && ms >= waitMs) vain.set(namespace, true)
      return isThere
    } finally {
      waiting -= 1
    }
  }
  return async ({ namespace, dryRun }, leftMs) => {
    const secret = index.secrets.get(namespace)
    if (isUsable(secret)) return secret?.ours ? undefined : notManaged
    if (!dryRun && (await appears(namespace, leftMs))) return undefined
    return reason(namespace) ?? notReady(namespace)
  }
}

/** Runs with a signal that ends after `ms`, or when a new failure makes it over. */
async function untilOver<T>(
  end: { ms: number; isOver: () => boolean; failures: FailureChanges },
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const over = new AbortController()
  const stop = end.failures.onChange(() => {
    if (end.isOver()) over.abort()
  })
  try {
    return await withinLimit({ ms: end.ms, signal: over.signal }, run)
  } finally {
    stop()
  }
}

/** Where no failure is known: of one that only the leader knows there is an event. */
export function notReady(namespace: string): string {
  return `not ready yet; the kubelet will retry; if this lasts, see the events of namespace ${namespace}`
}

import { type KubernetesError, LONGEST_WAIT_MS } from './errors.ts'

interface WatchLife {
  /** How long the watch lived; 0 where it was never opened. */
  livedMs: number
  /** The timeout that was requested. */
  askedMs: number
}

/** How one turn of list-and-watch ended. */
export interface Ending extends WatchLife {
  /** Undefined: the server closed the watch in order. */
  error?: KubernetesError | undefined
  /** Watches in a row, this one included, that lived and brought neither event nor bookmark. */
  silentWatches: number
  /** A request failed before this watch, and nothing came since: the API server may have restarted. */
  hasFailed: boolean
}

/** What comes next: a new list or a watch from the last version, after `waitMs`. */
interface Pace {
  kind: 'closed' | 'closed_early' | 'gone' | 'malformed' | 'timeout' | 'http' | 'network'
  relist: boolean
  waitMs: number
  /** Endings in a row that were not in order; to be set to 0 when an event arrives. */
  failures: number
}

/**
 * A watch that lived this long, or half of its timeout, shows that there is no tight loop.
 */
const STEADY_MS = 5_000

/**
 * | ending                                         | then              | when                    |
 * |------------------------------------------------|-------------------|-------------------------|
 * | closed in order, after STEADY_MS or more       | last version      | at once                 |
 * | closed in order, sooner                        | last version      | 1 s, 2 s, ... 30 s      |
 * | version gone (410, unusable, from the future)  | a new list        | the same two rows       |
 * | the answer is no watch                         | a new list        | 1 s, 2 s, ... 30 s      |
 * | anything else: network, timeout, 401, 500, ... | last version      | 1 s, 2 s, ... 30 s      |
 *
 * A list also follows two silent watches in a row, one silent watch after a failure, or one that lived
 * longer than its timeout. Reason: after etcd was restored from a backup, which restarts the API server,
 * it answers a watch from a future version with 200 and then sends nothing. A healthy server sends a
 * bookmark before it closes a watch.
 *
 * After a steady watch the waits start again at 1 s. A longer Retry-After of the server counts, up to
 * LONGEST_WAIT_MS. `random` (0 to 1) shortens the wait by up to half, so that replicas that lost the
 * server together do not return together.
 */
export function paceAfter(ending: Ending, failures: number, random: number): Pace {
  const kind = kindOf(ending)
  const steady = isSteady(ending)
  const relist = kind === 'gone' || kind === 'malformed' || isTooSilent(ending, kind)
  if ((kind === 'closed' || kind === 'gone') && steady) {
    return { kind, relist, waitMs: 0, failures: 0 }
  }
  const before = steady ? 0 : failures
  const backOffMs = Math.min(LONGEST_WAIT_MS, 1000 * 2 ** Math.min(before, 10)) * (1 - random / 2)
  return {
    kind: kind === 'closed' ? 'closed_early' : kind,
    relist,
    waitMs: Math.min(LONGEST_WAIT_MS, Math.max(backOffMs, ending.error?.retryAfterMs ?? 0)),
    failures: before + 1,
  }
}

/** Whether the watch lived long enough to show that there is no tight loop. */
export function isSteady({ livedMs, askedMs }: WatchLife): boolean {
  return livedMs >= Math.min(STEADY_MS, askedMs / 2)
}

function isTooSilent(ending: Ending, kind: Pace['kind']): boolean {
  const { silentWatches, hasFailed, livedMs, askedMs } = ending
  if (silentWatches >= (hasFailed ? 1 : 2)) return true
  return kind === 'timeout' && silentWatches > 0 && livedMs >= askedMs
}

function kindOf({ error }: Ending): Exclude<Pace['kind'], 'closed_early'> {
  if (!error) return 'closed'
  if (isGone(error)) return 'gone'
  if (error.reason === 'Malformed') return 'malformed'
  if (error.status !== undefined) return 'http'
  return error.reason === 'Timeout' ? 'timeout' : 'network'
}

/**
 * 400: the version is invalid. 504 with this cause: etcd was restored from a backup and has not
 * reached the version again.
 */
function isGone({ status, reason, causes }: KubernetesError): boolean {
  if (status === 410 || reason === 'Expired' || reason === 'Gone') return true
  return status === 400 || causes.includes('ResourceVersionTooLarge')
}

import type { BluemixEnvironment } from '../../sandbox/bluemix/environment.ts'

/** What the environment was asked in some time. */
export interface Traffic {
  seconds: number
  requests: number
  /** Lists of the organization that was listed most. */
  lists: number
  /** Checks of a credential at the registry. */
  checks: number
  /** Requests that belong neither to a list nor to a check. */
  others: number
  /** Of all responses but lists. */
  bytes: number
}

/** Begins to count; the result says what has been asked since. */
export function countTraffic({ ledger }: Pick<BluemixEnvironment, 'ledger'>): () => Traffic {
  const begin = performance.now()
  const before = { requests: ledger.requests().length, lists: ledger.lists().length }
  return () => {
    const requests = ledger.requests().slice(before.requests)
    const by = Object.groupBy(requests, ({ operation = 'none' }) => operation)
    const organizations = Object.groupBy(
      ledger.lists().slice(before.lists),
      ({ organization }) => organization,
    )
    const { list = [], registry: pings = [], oauth: checks = [] } = by
    const size = requests.reduce((sum, { bytes }) => sum + bytes, 0)
    return {
      seconds: (performance.now() - begin) / 1000,
      requests: requests.length,
      lists: Math.max(0, ...Object.values(organizations).map(each => each?.length ?? 0)),
      checks: checks.length,
      others: requests.length - list.length - pings.length - checks.length,
      bytes: size - list.reduce((sum, { bytes }) => sum + bytes, 0),
    }
  }
}

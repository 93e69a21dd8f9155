/** How long something may take: `ms` milliseconds, and not longer than until `signal` aborts. */
export interface TimeLimit {
  ms?: number
  signal?: AbortSignal | undefined
}

/**
 * Runs `work` with a signal that aborts at the limit, after `ms` with a TimeoutError, and when the
 * work is done. Leaves no timer and no listener behind.
 */
export async function withinLimit<T>(
  { ms, signal }: TimeLimit,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = new AbortController()
  const abort = () => limit.abort(signal?.reason)
  const expire = () => limit.abort(new DOMException('no answer in time', 'TimeoutError'))
  const timer = ms === undefined ? undefined : setTimeout(expire, ms)
  signal?.addEventListener('abort', abort)
  if (signal?.aborted) abort()
  try {
    return await work(limit.signal)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
    limit.abort()
  }
}

/**
 * The same promise, rejecting at the limit: after `ms` with a TimeoutError, else with the reason of
 * the signal. A later result is dropped.
 */
export function inTime<T>(promise: Promise<T>, limit: TimeLimit): Promise<T> {
  return withinLimit(limit, signal => {
    const { promise: late, reject } = Promise.withResolvers<never>()
    signal.addEventListener('abort', () => reject(signal.reason))
    if (signal.aborted) reject(signal.reason)
    return Promise.race([late, promise])
  })
}

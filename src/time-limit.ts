/** How long something may take: `ms` milliseconds, and not longer than until `signal` aborts. */
export interface TimeLimit {
  ms?: number
  signal?: AbortSignal | undefined
}

/** Without a reason of its own, each abort would make an error with a stack. */
const done = new DOMException('the work is done', 'AbortError')

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
  const expire = () => limit.abort(noAnswer())
  const timer = ms === undefined ? undefined : setTimeout(expire, ms)
  signal?.addEventListener('abort', abort)
  if (signal?.aborted) abort()
  try {
    return await work(limit.signal)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
    limit.abort(done)
  }
}

/**
 * The same promise, rejecting at the limit: after `ms` with a TimeoutError, else with the reason of
 * the signal. A later result is dropped. Each review needs some of these: an AbortController would
 * cost more than the rest of the review.
 */
export async function inTime<T>(promise: Promise<T>, { ms, signal }: TimeLimit): Promise<T> {
  const { promise: result, resolve, reject } = Promise.withResolvers<T>()
  const abort = () => reject(signal?.reason)
  const timer = ms === undefined ? undefined : setTimeout(() => reject(noAnswer()), ms)
  signal?.addEventListener('abort', abort)
  if (signal?.aborted) abort()
  Promise.resolve(promise).then(resolve, reject)
  try {
    return await result
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

function noAnswer(): DOMException {
  return new DOMException('no answer in time', 'TimeoutError')
}

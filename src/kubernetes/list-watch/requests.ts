import type { KubernetesClient, OpenedResponse } from '../client.ts'
import { answeredError, asKubernetesError, KubernetesError } from '../errors.ts'
import { MOST_BYTES, readAtMost } from './size-limits.ts'
import { type Change, MalformedWatch, type WatchedObject, watchEvents } from './watch-lines.ts'

/**
 * What is listed and watched: `path` as `/api/v1/secrets`, `query` with a label or field selector.
 */
export interface Watched {
  client: KubernetesClient
  path: string
  query: Record<string, string>
}

/**
 * The server ends a watch after its timeoutSeconds; one that lives this much longer is half-open.
 */
const WATCH_GRACE_MS = 10_000

/**
 * Watches from `version` for `seconds`, and resolves when the server has ended the watch.
 * `on.change` gets each change, `on.contact` hears of everything that shows that the server is
 * there. Rejects with a KubernetesError; an ERROR event is one, with the event's own code.
 */
export async function watchFrom<T extends WatchedObject>(
  watched: Watched & { version: string; seconds: number },
  stop: AbortSignal,
  on: { contact: () => void; change: (change: Change<T>) => void },
): Promise<void> {
  const action = `watch ${watched.path}`
  const query = {
    ...watched.query,
    watch: 'true',
    allowWatchBookmarks: 'true',
    resourceVersion: watched.version,
    timeoutSeconds: String(watched.seconds),
  }
  await translated(action, () =>
    within(watched.seconds * 1000 + WATCH_GRACE_MS, stop, async signal => {
      const response = await get(action, { ...watched, query }, signal)
      on.contact()
      for await (const event of watchEvents<T>(response.body)) {
        if (event.type === 'ERROR') {
          const { code = 500 } = event.object
          throw answeredError(action, code, { headers: {}, body: event.object })
        }
        on.contact()
        on.change(event)
      }
    }),
  )
}

/** @throws KubernetesError where the answer is none that was asked for. */
export async function get(
  action: string,
  watched: Watched,
  signal: AbortSignal,
): Promise<OpenedResponse> {
  const response = await watched.client.open(watched.path, watched.query, { signal })
  if (response.status === 200) return response
  const body = (await readAtMost(response.body, MOST_BYTES)).toString()
  throw answeredError(action, response.status, { headers: response.headers, body })
}

/**
 * Gives `work` a signal that aborts after `ms`, on stop, and when it is over: no connection is left
 * behind.
 */
export async function within<R>(
  ms: number,
  stop: AbortSignal,
  work: (signal: AbortSignal) => Promise<R>,
): Promise<R> {
  stop.throwIfAborted()
  const limit = new AbortController()
  const end = () => limit.abort(stop.reason)
  const timer = setTimeout(() => limit.abort(new DOMException('', 'TimeoutError')), ms)
  stop.addEventListener('abort', end)
  try {
    return await work(limit.signal)
  } finally {
    clearTimeout(timer)
    stop.removeEventListener('abort', end)
    limit.abort()
  }
}

/** The same work, rejecting with a KubernetesError. */
export async function translated<R>(action: string, work: () => Promise<R>): Promise<R> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof MalformedWatch)) throw asKubernetesError(action, error)
    throw new KubernetesError(`cannot ${action}: ${error.message}`, { reason: 'Malformed' })
  }
}

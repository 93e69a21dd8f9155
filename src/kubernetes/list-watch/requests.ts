import type { KubernetesClient, OpenedResponse } from '../client.ts'
import { answeredError, asKubernetesError, KubernetesError } from '../errors.ts'
import { type Change, MalformedWatch, type WatchedObject, watchEvents } from './watch-lines.ts'

/**
 * What is listed and watched: `path` as `/api/v1/secrets`, `query` with a label or field selector.
 */
export interface Watched {
  client: KubernetesClient
  path: string
  query: Record<string, string>
}

const PAGE_SIZE = '500'
const PAGE_TIMEOUT_MS = 30_000

/**
 * The server ends a watch after its timeoutSeconds; one that lives this much longer is half-open.
 */
const WATCH_GRACE_MS = 10_000

/**
 * All objects, page by page, and the version to watch from. `onPage` hears of each page that has
 * arrived. Rejects with a KubernetesError; a 410 means that the pages' snapshot is gone and the
 * list has to start over.
 */
export async function listAll<T>(
  watched: Watched,
  stop: AbortSignal,
  onPage: () => void,
): Promise<{ items: T[]; version: string }> {
  const items: T[] = []
  let version: string | undefined
  let next: string | undefined
  do {
    const page: Page<T> = await listPage(watched, next, stop)
    items.push(...(page.items ?? []))
    version ??= page.metadata?.resourceVersion
    next = page.metadata?.continue
    onPage()
  } while (next)
  if (!version) throw new KubernetesError(`cannot list ${watched.path}: the answer is no list`)
  return { items, version }
}

interface Page<T> {
  metadata?: { resourceVersion?: string; continue?: string }
  items?: T[] | null
}

async function listPage<T>(
  watched: Watched,
  next: string | undefined,
  stop: AbortSignal,
): Promise<Page<T>> {
  const action = `list ${watched.path}`
  const query = { limit: PAGE_SIZE, ...watched.query, ...(next && { continue: next }) }
  return translated(action, () =>
    within(PAGE_TIMEOUT_MS, stop, async signal => {
      const response = await get(action, { ...watched, query }, signal)
      return JSON.parse(await response.body.text())
    }),
  )
}

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

async function get(action: string, watched: Watched, signal: AbortSignal): Promise<OpenedResponse> {
  const response = await watched.client.open(watched.path, watched.query, { signal })
  if (response.status === 200) return response
  const body = await response.body.text()
  throw answeredError(action, response.status, { headers: response.headers, body })
}

/**
 * Gives `work` a signal that aborts after `ms`, on stop, and when it is over: no connection is left
 * behind.
 */
async function within<R>(
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

async function translated<R>(action: string, work: () => Promise<R>): Promise<R> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof MalformedWatch)) throw asKubernetesError(action, error)
    throw new KubernetesError(`cannot ${action}: ${error.message}`, { reason: 'Malformed' })
  }
}

import { withinLimit } from '../time-limit.ts'
import type { KubernetesClient, OpenedResponse } from './client.ts'
import { answeredError, asKubernetesError, KubernetesError } from './errors.ts'
import {
  createTextRoom,
  HEAD_BYTES,
  isTooDense,
  MOST_BYTES,
  type ObjectHead,
  readAtMost,
  readHead,
  type TextRoom,
} from './size-limits.ts'

/**
 * What is listed and watched: `path` as `/api/v1/secrets`, `query` with a label or field selector.
 */
export interface Watched {
  client: KubernetesClient
  path: string
  query: Record<string, string>
}

/**
 * The server ends a watch after its timeoutSeconds. A watch that lives this much longer is half-open.
 */
const WATCH_GRACE_MS = 10_000

/**
 * Watches from `version` for `seconds`, and resolves when the server has ended the watch.
 * Calls `on.change` for each change, and `on.contact` for each sign of life of the server. Rejects with
 * a KubernetesError, also for an ERROR event, with the code of the event.
 */
export async function watchFrom<T extends WatchedObject>(
  watched: Watched & { version: string; seconds: number },
  stop: AbortSignal,
  on: { contact: () => void; change: (change: Change<T>) => void },
): Promise<void> {
  const { client, path } = watched
  const action = `watch ${path}`
  const query = {
    ...watched.query,
    watch: 'true',
    allowWatchBookmarks: 'true',
    resourceVersion: watched.version,
    timeoutSeconds: String(watched.seconds),
  }
  await translated(action, () =>
    withinLimit({ ms: watched.seconds * 1000 + WATCH_GRACE_MS, signal: stop }, async signal => {
      const response = await get(action, { client, path, query }, signal)
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

/** @throws KubernetesError where the status is not 200. */
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

/** The same work, rejecting with a KubernetesError. */
export async function translated<R>(action: string, work: () => Promise<R>): Promise<R> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof MalformedWatch)) throw asKubernetesError(action, error)
    throw new KubernetesError(`cannot ${action}: ${error.message}`, { reason: 'Malformed' })
  }
}

/** An object as the API's JSON has it: timestamps are strings. */
export interface WatchedObject {
  metadata?: { name?: string; namespace?: string; resourceVersion?: string } | undefined
}

/**
 * A watch is a stream of these, one JSON object a line (kubernetes/apimachinery
 * pkg/apis/meta/v1/watch.go).
 */
type WatchEvent<T> =
  | Change<T>
  | { type: 'ERROR'; object: { code?: number; reason?: string; message?: string } }

/**
 * A bookmark changes only the version to resume from. Of an object that is too large to read only the
 * head is known.
 */
export type Change<T> =
  | { type: 'ADDED' | 'MODIFIED' | 'DELETED'; object: T }
  | { type: 'BOOKMARK'; object: WatchedObject }
  | { type: 'OVERSIZED'; object: ObjectHead }

/** The stream holds something else than watch events, so the rest of it cannot be trusted. */
class MalformedWatch extends Error {
  override readonly name = 'MalformedWatch'
}

/**
 * The events in a byte stream. A cut connection leaves half a line at the end: it is dropped, and the
 * watch resumes before it. Of a line that is too long only the beginning is held. Throws
 * MalformedWatch, and the errors of the stream.
 */
export async function* watchEvents<T>(
  chunks: AsyncIterable<Uint8Array>,
  longestLine = MOST_BYTES,
): AsyncGenerator<WatchEvent<T>> {
  const line: Line = { room: createTextRoom(), length: 0 }
  for await (const chunk of chunks) {
    let start = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      lengthen(line, chunk.subarray(start, end), longestLine)
      const event = eventOf<T>(line, longestLine)
      line.room.clear()
      line.length = 0
      if (event !== undefined) yield event
      start = end + 1
    }
    lengthen(line, chunk.subarray(start), longestLine)
  }
}

/** `length` counts also what is not held. */
interface Line {
  readonly room: TextRoom
  length: number
}

function lengthen(line: Line, part: Uint8Array, longest: number): void {
  const before = line.length
  line.length += part.length
  if (before > longest) return
  line.room.append(part)
  // Something else than an event is refused before its end.
  if (line.length > longest) oversized(line.room.text())
}

function oversized(text: Uint8Array): WatchEvent<never> {
  const beginning = Buffer.from(text.subarray(0, HEAD_BYTES)).toString()
  const object = /^\{"type":"(ADDED|MODIFIED|DELETED)",/.test(beginning) && readHead(beginning)
  if (!object) throw new MalformedWatch('a long line is not a watch event')
  return { type: 'OVERSIZED', object }
}

function eventOf<T>({ room, length }: Line, longest: number): WatchEvent<T> | undefined {
  const text = room.text()
  if (length > longest || isTooDense(text)) return oversized(text)
  const line = text.toString('utf8')
  return line.trim() === '' ? undefined : parsed(line)
}

const NEWLINE = 0x0a

const TYPES = new Set(['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR'])

function parsed<T>(line: string): WatchEvent<T> {
  let event: WatchEvent<T> | undefined
  try {
    event = JSON.parse(line)
  } catch {
    throw new MalformedWatch('a line is not JSON')
  }
  const isEvent = TYPES.has(event?.type ?? '') && typeof event?.object === 'object'
  if (!isEvent || event?.object === null) throw new MalformedWatch('a line is not a watch event')
  return event as WatchEvent<T>
}

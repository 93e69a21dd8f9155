import type { Logger } from 'pino'
import { framesOf } from '../failure.ts'
import { withinLimit } from '../time-limit.ts'
import { KubernetesError } from './errors.ts'
import {
  createTextRoom,
  HEAD_BYTES,
  isTooDense,
  MOST_BYTES,
  MOST_PAGE_BYTES,
  type ObjectHead,
  readAtMost,
  readHead,
  type TextRoom,
} from './size-limits.ts'
import type { WatchMeters } from './watch-metrics.ts'
import { get, translated, type Watched } from './watch-stream.ts'

const PAGE_SIZE = 500
const PAGE_TIMEOUT_MS = 30_000

/** How many objects a page has; remembered from one list to the next. */
export interface PageSize {
  now: number
  readonly most: number
  /** One page after the other is read into it. */
  readonly room: TextRoom
}

/** `limit` of the query, where it is given, is the most. */
export function createPageSize({ limit }: Record<string, string>): PageSize {
  const most = Number(limit ?? PAGE_SIZE)
  return { now: most, most, room: createTextRoom() }
}

/**
 * Lists all objects, page by page, and resolves to the version to watch from. No more than a page is
 * held: `on.item` gets each object as it arrives.
 *
 * | the page                                    | the next request                              |
 * |---------------------------------------------|-----------------------------------------------|
 * | is larger than MOST_PAGE_BYTES, or dense    | the same page with half as many objects       |
 * | holds one object, larger than MOST_BYTES    | the page behind it; `on.skipped` gets the head |
 * | is smaller than a quarter of that           | the next page, with twice as many objects     |
 * | else                                        | the next page                                 |
 *
 * Rejects with a KubernetesError; a 410 means that the pages' snapshot is gone and the list has to
 * start over.
 */
export async function listAll<T>(
  watched: Watched,
  size: PageSize,
  stop: AbortSignal,
  on: { contact(): void; item(item: T): void; skipped(head: ObjectHead): void },
): Promise<string> {
  let version: string | undefined
  let next: string | undefined
  do {
    const { page, skipped } = await nextPage<T>(watched, size, next, stop)
    for (const item of page.items ?? []) on.item(item)
    if (skipped !== undefined) on.skipped(skipped)
    version ??= page.metadata?.resourceVersion
    next = page.metadata?.continue
    on.contact()
  } while (next)
  if (!version) throw new KubernetesError(`cannot list ${watched.path}: the answer is no list`)
  return version
}

interface Page<T> {
  metadata?: { resourceVersion?: string; continue?: string }
  items?: T[] | null
}

async function nextPage<T>(
  watched: Watched,
  size: PageSize,
  next: string | undefined,
  stop: AbortSignal,
): Promise<{ page: Page<T>; skipped?: ObjectHead | undefined }> {
  for (;;) {
    const query = { ...watched.query, limit: String(size.now), ...(next && { continue: next }) }
    const { page, bytes, beginning } = await readPage<T>({ ...watched, query }, size, stop)
    if (page !== undefined) {
      if (bytes < MOST_PAGE_BYTES / 4) size.now = Math.min(size.most, size.now * 2)
      return { page }
    }
    if (size.now === 1) return skipObject(watched.path, beginning)
    size.now = Math.floor(size.now / 2)
  }
}

/** A page; where it is too large, only the beginning of its text. */
async function readPage<T>(
  watched: Watched,
  { now, room }: PageSize,
  stop: AbortSignal,
): Promise<{ page?: Page<T>; bytes: number; beginning: string }> {
  const action = `list ${watched.path}`
  const most = now === 1 ? MOST_BYTES : MOST_PAGE_BYTES
  return translated(action, () =>
    withinLimit({ ms: PAGE_TIMEOUT_MS, signal: stop }, async signal => {
      const { body } = await get(action, watched, signal)
      const text = await readAtMost(body, most, room)
      if (text.length <= most && !isTooDense(text)) {
        return { page: JSON.parse(text.toString()), bytes: text.length, beginning: '' }
      }
      return { bytes: text.length, beginning: text.subarray(0, HEAD_BYTES).toString() }
    }),
  )
}

/**
 * What a page of one object says before that object: the API server writes a list's own metadata,
 * and so the way to the next page, first.
 */
function skipObject(
  path: string,
  beginning: string,
): { page: Page<never>; skipped: ObjectHead | undefined } {
  const [list, metadata] = LIST_BEGINNING.exec(beginning) ?? []
  if (list === undefined || metadata === undefined) {
    throw new KubernetesError(`cannot list ${path}: an object is too large`)
  }
  return {
    page: { metadata: JSON.parse(metadata) },
    skipped: readHead(beginning.slice(list.length)),
  }
}

const LIST_BEGINNING =
  /^\{(?:"kind":"[^"]*",)?(?:"apiVersion":"[^"]*",)?"metadata":(\{[^}]*\}),"items":\[/

/** Keeps up with a set of objects. Called in order, one call at a time; must not throw. */
export interface ListWatchHandler<T> {
  /** A list begins, in which the whole set arrives object by object. */
  replace(): Replacement<T>
  upsert(item: T): void
  remove(item: T): void
}

/** A list that is arriving. It counts for nothing until it is complete. */
export interface Replacement<T> {
  add(item: T): void
  /**
   * The list is complete: what is not in it is gone. `anew`: the API server went back in time, so
   * nothing that was known before counts.
   */
  complete(listVersion: string, anew: boolean): void
}

/**
 * The same handler, with its exceptions logged and counted: they are bugs, and a bug in handling one
 * object must not end the watch of all others. A message may quote the object, so only the stack is
 * logged.
 */
export function guarded<T>(
  handler: ListWatchHandler<T>,
  { logger, meters }: { logger: Logger; meters: WatchMeters },
): ListWatchHandler<T> {
  const guard = (handle: () => void) => {
    try {
      handle()
    } catch (error) {
      meters.failed('handler')
      logger.error({ at: framesOf(error) }, 'cannot handle a change: this is a bug')
    }
  }
  return {
    replace: () => {
      const replacement = handler.replace()
      return {
        add: item => guard(() => replacement.add(item)),
        complete: (...list) => guard(() => replacement.complete(...list)),
      }
    },
    upsert: item => guard(() => handler.upsert(item)),
    remove: item => guard(() => handler.remove(item)),
  }
}

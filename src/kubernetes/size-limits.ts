import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'

/** What the beginning of an object says. */
export interface ObjectHead {
  metadata: { name: string; namespace?: string; resourceVersion?: string }
}

/**
 * More text than this is not held at once, be it a page of a list or one object. Objects are at most
 * 1.5 MiB in etcd; few are larger than this as JSON, namespaces and Secrets never (Go writes some
 * characters as six bytes, which counts for the names in a ServiceAccount only).
 */
export const MOST_BYTES = 4 << 20

/**
 * Nor is text with more of `{`, `[` and `,` than this parsed: 4 MiB of `{},{},...` become 80 MB of
 * objects. Ordinary pages have one in about 20 bytes.
 */
const MOST_STRUCTURE = 400_000

const [COMMA, BRACKET, BRACE] = [0x2c, 0x5b, 0x7b]

/** Whether this text would need much more memory as objects. */
export function isTooDense(text: Uint8Array): boolean {
  if (text.length < MOST_STRUCTURE) return false
  let structure = 0
  for (const byte of text) {
    if (byte === COMMA || byte === BRACE || byte === BRACKET) structure += 1
  }
  return structure > MOST_STRUCTURE
}

/**
 * A page of several objects that is larger than this is read again in smaller pages, so that only
 * an object that is itself larger needs more room.
 */
export const MOST_PAGE_BYTES = 1 << 20

/** A buffer for one text at a time. The next text overwrites it. */
export interface TextRoom {
  readonly length: number
  /** Valid until `clear`. */
  text(): Buffer
  append(part: Uint8Array): void
  clear(): void
}

/**
 * Node frees memory outside of the JavaScript heap late: a list of large objects would fill the
 * container with unused buffers. So all texts share one buffer.
 */
export function createTextRoom(): TextRoom {
  let buffer = Buffer.allocUnsafeSlow(64 << 10)
  let length = 0
  return {
    get length() {
      return length
    },
    text: () => buffer.subarray(0, length),
    append(part) {
      if (length + part.length > buffer.length) {
        const larger = Buffer.allocUnsafeSlow(Math.max(2 * buffer.length, length + part.length))
        buffer.copy(larger, 0, 0, length)
        buffer = larger
      }
      buffer.set(part, length)
      length += part.length
    },
    clear() {
      length = 0
    },
  }
}

/** The text of a stream, to its end or until it is longer than `bytes`. */
export async function readAtMost(
  body: AsyncIterable<Uint8Array>,
  bytes: number,
  room = createTextRoom(),
): Promise<Buffer> {
  room.clear()
  for await (const chunk of body) {
    room.append(chunk)
    if (room.length > bytes) break
  }
  return room.text()
}

/** The first part of a text, which holds the beginning of an object's metadata. */
export const HEAD_BYTES = 8 << 10

/**
 * The name and version of the first object in `text`. Go writes the fields of a struct in their
 * order, so they stand at the beginning, before anything that a user chose (kubernetes/apimachinery
 * pkg/apis/meta/v1/types.go, ObjectMeta). Undefined: there is no object.
 */
export function readHead(text: string): ObjectHead | undefined {
  const [, name, namespace, resourceVersion] = HEAD.exec(text) ?? []
  if (name === undefined) return undefined
  return {
    metadata: {
      name,
      ...(namespace !== undefined && { namespace }),
      ...(resourceVersion !== undefined && { resourceVersion }),
    },
  }
}

const text = (key: string) => `"${key}":"([^"]*)"`
const skipped = (key: string) => `(?:"${key}":"[^"]*",)?`
const HEAD = new RegExp(
  [
    `"metadata":\\{${text('name')},?`,
    skipped('generateName'),
    `(?:${text('namespace')},?)?`,
    `${skipped('selfLink')}${skipped('uid')}`,
    `(?:${text('resourceVersion')})?`,
  ].join(''),
)

const LOG_EVERY_MS = 10_000

/** Logs once for each object that is skipped, and at most one of them in ten seconds. */
export function createSkipLog(
  logger: Logger,
  now = performance.now.bind(performance),
): (head: ObjectHead) => void {
  const logged = new LRUCache<string, true>({ max: 1000 })
  let last = Number.NEGATIVE_INFINITY
  return ({ metadata: { name, namespace } }) => {
    const object = namespace === undefined ? name : `${namespace}/${name}`
    if (logged.has(object) || now() - last < LOG_EVERY_MS) return
    last = now()
    logged.set(object, true)
    logger.warn({ object }, 'an object is too large to read and counts as absent')
  }
}

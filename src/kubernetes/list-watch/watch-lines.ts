/** An object as the API's JSON has it: timestamps are strings. */
export interface WatchedObject {
  metadata?: { resourceVersion?: string | undefined } | undefined
}

/**
 * A watch is a stream of these, one JSON object a line (kubernetes/apimachinery
 * pkg/apis/meta/v1/watch.go).
 */
export type WatchEvent<T> =
  | Change<T>
  | { type: 'ERROR'; object: { code?: number; reason?: string; message?: string } }

/** A bookmark changes nothing but the version to resume from. */
export type Change<T> =
  | { type: 'ADDED' | 'MODIFIED' | 'DELETED'; object: T }
  | { type: 'BOOKMARK'; object: WatchedObject }

/** The stream holds something that is no watch event, so nothing after it can be trusted. */
export class MalformedWatch extends Error {
  override readonly name = 'MalformedWatch'
}

/**
 * Objects are at most 1.5 MiB in etcd; as JSON with managed fields they can be several times that.
 */
const LONGEST_LINE = 8 << 20

/**
 * The events in a byte stream. Half a line at the end is what a cut connection leaves: it is
 * dropped, for the watch is resumed before it. Throws MalformedWatch, and whatever the stream
 * throws.
 */
export async function* watchEvents<T>(
  chunks: AsyncIterable<Uint8Array>,
  longestLine = LONGEST_LINE,
): AsyncGenerator<WatchEvent<T>> {
  let parts: Uint8Array[] = []
  let length = 0
  for await (const chunk of chunks) {
    let start = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      const line = Buffer.concat([...parts, chunk.subarray(start, end)]).toString('utf8')
      if (line.trim() !== '') yield parsed(line)
      parts = []
      length = 0
      start = end + 1
    }
    parts.push(chunk.subarray(start))
    length += chunk.length - start
    if (length > longestLine) throw new MalformedWatch(`a line is longer than ${longestLine} bytes`)
  }
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

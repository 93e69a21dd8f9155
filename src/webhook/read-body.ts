import type { IncomingMessage } from 'node:http'
import { type Connection, maximum } from './connections.ts'
import { createRoundRobin } from './fair-queue.ts'

export interface BodyLimits {
  /**
   * The API server stores a pod of at most 1.5 MiB (etcd's request limit), and Go's JSON writes some
   * characters (`<`) as six bytes: 9 MiB, and the rest of the review.
   */
  bytes: number
  /**
   * Of the characters `{`, `[`, `,` and `:`. In a pod as etcd holds it (protobuf) each of them takes
   * a byte at least, in a text as well as between fields: 1.5 million.
   */
  structure: number
  /** Up to this a body is parsed in one go, in about a millisecond. */
  smallBytes: number
  smallStructure: number
  /** Of all bodies that are not parsed yet. */
  bytesInAll: number
  /** A large body that keeps another one waiting must arrive as fast as this, after a while. */
  bytesPerSecond: number
  slowAfterMs: number
}

/** Why a body was not read to its end. */
export class BodyRefused extends Error {
  readonly statusCode: 408 | 413 | 415
  constructor(statusCode: 408 | 413 | 415) {
    super(`refused with ${statusCode}`)
    this.statusCode = statusCode
  }
}

export interface Body {
  chunks: Buffer[]
  isLarge: boolean
  /** The connection was closed meanwhile. */
  isClosed(): boolean
  /** Gives back its bytes, and the turn if it is large. Call it when the body is parsed. */
  release(): void
}

interface Reading {
  connection: Connection
  payload: IncomingMessage
  chunks: Buffer[]
  bytes: number
  /** Bytes of memory: many small chunks take more than they hold. */
  held: number
  structure: number
  isLarge: boolean
  isWhole: boolean
  isEnded: boolean
  /** Set when it got the turn. */
  turnAt: number | undefined
  end(error: Error | undefined): void
}

interface State {
  limits: BodyLimits
  /** In the order in which they began. */
  unfinished: Set<Reading>
  bytesInAll: number
  turn: Reading | undefined
  waiting: ReturnType<typeof createRoundRobin<Reading>>
  watch: NodeJS.Timeout | undefined
}

const watchEveryMs = 250
/** What a Buffer costs beside its bytes. */
const CHUNK_BYTES = 256

/**
 * Reads bodies within bounds on each of them and on all together:
 *
 * | the body                                            | what follows                            |
 * |-----------------------------------------------------|-----------------------------------------|
 * | has a content-encoding                              | refused, 415                            |
 * | says that it is too long, is it, or has too much    | refused, 413                            |
 * | structure                                           |                                         |
 * | is large                                            | read further when it has the turn: one  |
 * |                                                     | at a time, the addresses in turn        |
 * | has the turn, is slow, and another one waits        | its connection is closed                |
 * | is one too many bytes for all unfinished ones       | of the address that holds most bytes,   |
 * |                                                     | the one that began first is closed      |
 *
 * While a large body waits its socket is not read. Rejects with BodyRefused, 408 where the
 * connection ended before.
 */
export function createBodyReader(limits: BodyLimits) {
  const state: State = {
    limits,
    unfinished: new Set(),
    bytesInAll: 0,
    turn: undefined,
    waiting: createRoundRobin(),
    watch: undefined,
  }
  return (payload: IncomingMessage, connection: Connection): Promise<Body> => {
    const { headers } = payload
    if ((headers['content-encoding'] ?? 'identity') !== 'identity') return refuse(415)
    if (Number(headers['content-length'] ?? 0) > limits.bytes) return refuse(413)
    return readBody(payload, connection, state)
  }
}

function refuse(status: 413 | 415): Promise<never> {
  return Promise.reject(new BodyRefused(status))
}

function readBody(payload: IncomingMessage, connection: Connection, state: State): Promise<Body> {
  const { promise, resolve, reject } = Promise.withResolvers<Body>()
  const reading: Reading = {
    connection,
    payload,
    chunks: [],
    bytes: 0,
    held: 0,
    structure: 0,
    isLarge: false,
    isWhole: false,
    isEnded: false,
    turnAt: undefined,
    end: error => {
      release(reading, state)
      reject(error)
    },
  }
  state.unfinished.add(reading)
  payload.on('data', (chunk: Buffer) => {
    if (!reading.isEnded) receive(reading, chunk, state)
  })
  payload.once('end', () => {
    if (reading.isEnded) return
    reading.isWhole = true
    connection.whole()
    resolve({
      chunks: reading.chunks,
      isLarge: reading.isLarge,
      isClosed: () => reading.isEnded,
      release: () => release(reading, state),
    })
  })
  payload.once('error', () => reading.end(new BodyRefused(408)))
  payload.once('close', () => {
    if (!reading.isWhole) reading.end(new BodyRefused(408))
  })
  return promise
}

function receive(reading: Reading, chunk: Buffer, state: State): void {
  const { limits } = state
  reading.chunks.push(chunk)
  reading.bytes += chunk.length
  reading.held += chunk.length + CHUNK_BYTES
  state.bytesInAll += chunk.length + CHUNK_BYTES
  countStructure(reading, chunk, limits)
  if (reading.bytes > limits.bytes || reading.structure > limits.structure) {
    reading.payload.pause()
    reading.end(new BodyRefused(413))
    return
  }
  const isLarge = reading.bytes > limits.smallBytes || reading.structure > limits.smallStructure
  if (isLarge && !reading.isLarge) becomeLarge(reading, state)
  while (state.bytesInAll > limits.bytesInAll) makeRoom(state)
}

/** A body of few bytes has few of anything: most reviews need no count. */
function countStructure(reading: Reading, chunk: Buffer, { smallStructure }: BodyLimits): void {
  if (reading.bytes <= smallStructure) return
  const isFirst = reading.bytes - chunk.length <= smallStructure
  for (const each of isFirst ? reading.chunks : [chunk]) reading.structure += structureOf(each)
}

/** 1 at the codes of `,`, `:`, `[` and `{`. A table is faster than comparisons. */
const STRUCTURE = Uint8Array.from({ length: 256 }, (_, code) =>
  Number(',:[{'.includes(String.fromCharCode(code))),
)

function structureOf(chunk: Uint8Array): number {
  let count = 0
  for (let at = 0; at < chunk.length; at++) count += STRUCTURE[chunk[at] as number] as number
  return count
}

function becomeLarge(reading: Reading, state: State): void {
  reading.isLarge = true
  reading.payload.pause()
  state.waiting.push(reading.connection.address, reading)
  passTurn(state)
}

function passTurn(state: State): void {
  while (state.turn === undefined) {
    const next = state.waiting.shift()
    if (next === undefined) break
    if (next.isEnded) continue
    state.turn = next
    next.turnAt = performance.now()
    next.payload.resume()
  }
  if (state.waiting.size === 0) {
    clearInterval(state.watch)
    state.watch = undefined
  } else {
    state.watch ??= setInterval(() => cutSlow(state), watchEveryMs).unref()
  }
}

/** The time to parse it is ours, not the client's. */
function cutSlow({ turn, limits }: State): void {
  if (turn === undefined || turn.isWhole) return
  const ms = performance.now() - (turn.turnAt ?? 0)
  if (ms < limits.slowAfterMs || turn.bytes >= (limits.bytesPerSecond * ms) / 1000) return
  cut(turn, 'large_body_too_slow')
}

function makeRoom({ unfinished }: State): void {
  const byAddress = Map.groupBy(unfinished, ({ connection }) => connection.address)
  const bytesOf = (readings: Reading[]) => readings.reduce((sum, { held }) => sum + held, 0)
  const most = maximum([...byAddress.values()], bytesOf) ?? []
  const first = most.find(({ held }) => held > 0)
  if (first) cut(first, 'too_many_bytes')
}

function cut(reading: Reading, reason: 'too_many_bytes' | 'large_body_too_slow'): void {
  reading.connection.close(reason)
  reading.end(new BodyRefused(408))
}

/** What it held is free at once, also where its reader still has the body. */
function release(reading: Reading, state: State): void {
  if (reading.isEnded) return
  reading.isEnded = true
  reading.chunks.length = 0
  state.unfinished.delete(reading)
  state.bytesInAll -= reading.held
  if (state.turn === reading) state.turn = undefined
  passTurn(state)
}

import type { ServerResponse } from 'node:http'
import type { Server } from 'node:https'
import type { Socket } from 'node:net'

/** Why a connection was closed from our side. */
export const closeReasons = [
  'too_many_connections',
  'handshake_too_slow',
  'never_used',
  'pipelined',
  'too_many_bytes',
  'large_body_too_slow',
] as const
export type CloseReason = (typeof closeReasons)[number]

export interface ConnectionLimits {
  /** Beyond this, what has waited for a second gives way; beyond the second, anything does. */
  connections: number
  connectionsAtMost: number
  handshakeMs: number
  /** Without a first request. */
  unusedMs: number
}

export interface Connection {
  readonly address: string
  /** Closed, or a request is not answered yet. */
  isBusy(): boolean
  /** A request began to arrive. */
  begin(response: ServerResponse): void
  /** The whole request is there: from now on to its answer the connection does not give way. */
  whole(): void
  close(reason: CloseReason): void
}

export interface Connections {
  of(request: { socket: Socket }): Connection
  /** Ends those on which nothing was ever asked. */
  closeUnused(): void
}

interface Row {
  address: string
  socket: Socket
  /** Since when it has waited for a whole request. */
  since: number
  isSecure: boolean
  isUsed: boolean
  isAnswering: boolean
  response: ServerResponse | undefined
}

const sweepMs = 1000
/** A connection that is younger is perhaps only shaking hands, in a crowd of honest ones. */
const youngMs = 1000

/**
 * Every TCP connection of a server, from before its handshake:
 *
 * | the connection                                       | what follows                           |
 * |------------------------------------------------------|----------------------------------------|
 * | handshake takes longer than `handshakeMs`            | closed                                 |
 * | sends no request for `unusedMs`                      | closed                                 |
 * | idle after a request; slow headers; slow body        | closed by Node's own time limits       |
 * | sends a request before the former one is answered    | closed: the API server never does      |
 * | one too many                                         | accepted, another one gives way        |
 *
 * The one that gives way: of the address that has the most connections, the one that has waited
 * longest without a whole request. So a client that opens many closes its own, not those that the API
 * server keeps idle. Where all of that address are being answered, none gives way: there are no more
 * of these than the queue and the waits for a Secret allow.
 */
export function watchConnections(
  server: Server,
  limits: ConnectionLimits,
  count: (reason: CloseReason) => void,
): Connections {
  const rows = new Map<string, Row>()
  const bySocket = new WeakMap<Socket, Connection>()
  const close = (row: Row, reason: CloseReason) => {
    if (row.socket.destroyed) return
    count(reason)
    row.socket.destroy()
  }
  server.prependListener('connection', (socket: Socket) => {
    const row = createRow(socket)
    const key = keyOf(socket)
    rows.set(key, row)
    socket.once('close', () => {
      if (rows.get(key) === row) rows.delete(key)
    })
    if (rows.size <= limits.connections) return
    const isForced = rows.size > limits.connectionsAtMost
    const victim = chooseVictim(rows.values(), row, isForced ? 0 : youngMs)
    if (victim) close(victim, 'too_many_connections')
  })
  server.on('secureConnection', socket => {
    const row = rows.get(keyOf(socket)) ?? createRow(socket)
    row.isSecure = true
    bySocket.set(
      socket,
      connectionOf(row, reason => close(row, reason)),
    )
  })
  sweepEvery(server, () => sweep(rows.values(), limits, close))
  return {
    of: ({ socket }) => bySocket.get(socket) ?? unknownConnection(socket),
    closeUnused: () => {
      for (const { socket, isUsed } of rows.values()) if (!isUsed) socket.destroy()
    },
  }
}

function connectionOf(row: Row, close: (reason: CloseReason) => void): Connection {
  return {
    address: row.address,
    // An answer that was handed over may not have been written yet: that is no pipelining.
    isBusy: () => row.socket.destroyed || row.response?.writableEnded === false,
    begin: response => {
      row.isUsed = true
      row.response = response
      response.once('close', () => {
        if (row.response !== response) return
        row.response = undefined
        row.isAnswering = false
        row.since = performance.now()
      })
    },
    whole: () => {
      row.isAnswering = true
    },
    close,
  }
}

/** Of a request that came without a network, as tests inject it. */
function unknownConnection(socket: Socket): Connection {
  return connectionOf(createRow(socket), () => socket.destroy())
}

function createRow(socket: Socket): Row {
  return {
    address: socket.remoteAddress ?? '',
    socket,
    since: performance.now(),
    isSecure: false,
    isUsed: false,
    isAnswering: false,
    response: undefined,
  }
}

/** A TLS socket has its TCP socket's addresses. */
function keyOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`
}

function chooseVictim(rows: Iterable<Row>, newest: Row, olderMs: number): Row | undefined {
  const latest = performance.now() - olderMs
  const open = [...rows].filter(row => row !== newest && !row.socket.destroyed)
  const byAddress = Map.groupBy(open, ({ address }) => address)
  const most = maximum([...byAddress.values()], ({ length }) => length) ?? []
  const idle = most.filter(row => !row.isAnswering && row.since <= latest)
  return maximum(idle, ({ since }) => -since)
}

/** The first with the largest. */
export function maximum<T>(items: readonly T[], size: (item: T) => number): T | undefined {
  let found = items[0]
  for (const item of items) if (found !== undefined && size(item) > size(found)) found = item
  return found
}

function sweep(
  rows: Iterable<Row>,
  limits: ConnectionLimits,
  close: (row: Row, reason: CloseReason) => void,
): void {
  const now = performance.now()
  for (const row of rows) {
    const waitedMs = now - row.since
    if (!row.isSecure && waitedMs > limits.handshakeMs) close(row, 'handshake_too_slow')
    else if (!row.isUsed && waitedMs > limits.unusedMs) close(row, 'never_used')
  }
}

function sweepEvery(server: Server, run: () => void): void {
  const timer = setInterval(run, sweepMs).unref()
  server.once('close', () => clearInterval(timer))
}

import { once } from 'node:events'
import type { Server as HttpsServer } from 'node:https'
import { type AddressInfo, createServer, type Server } from 'node:net'

/**
 * A turn of the event loop accepts one connection for each listening socket (libuv src/unix/stream.c,
 * `uv__server_io`). With one socket, a client that opens many connections fills the kernel's queue, and
 * the API server's connection waits in it for seconds.
 */
const ACCEPTORS = 4

/** Several sockets can listen on one port (SO_REUSEPORT) and get its connections in equal parts. */
const canShare = process.platform === 'linux'

export interface Acceptors {
  /** Accepts no more. */
  stop(): void
  /** Resolves when each connection that these sockets accepted has ended. Call `stop` first. */
  ended(): Promise<unknown>
}

/**
 * Options for `listen` that let more sockets listen at the same port. They would let another process do
 * so too. So this function first listens without them, and rejects with EADDRINUSE if the port is in use.
 */
export async function shareablePort(
  host: string,
  port: number,
): Promise<{ host: string; port: number; reusePort?: true }> {
  if (!canShare) return { host, port }
  const probe = createServer()
  probe.listen({ host, port })
  await once(probe, 'listening')
  probe.close()
  await once(probe, 'close')
  return { host, port, reusePort: true }
}

/** Opens the other sockets as soon as the server listens, where its own socket allows that. */
export function addAcceptors(server: HttpsServer): Acceptors {
  const others: Server[] = []
  server.once('listening', () => {
    const { address: host, port } = server.address() as AddressInfo
    for (let count = 1; count < ACCEPTORS && canShare; count++) {
      const other = createServer({ noDelay: true }, socket => server.emit('connection', socket))
      other.on('error', () => other.close())
      other.listen({ host, port, reusePort: true })
      others.push(other)
    }
  })
  let ended: Promise<unknown> = Promise.resolve()
  return {
    stop: () => {
      ended = Promise.all(others.map(other => new Promise(resolve => other.close(resolve))))
    },
    ended: () => ended,
  }
}

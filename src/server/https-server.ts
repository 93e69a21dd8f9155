import type { Server } from 'node:https'
import type { Socket } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'

/** PEM. */
export interface Certificate {
  key: string
  cert: string
}

export type HttpsServer = FastifyInstance<Server>

/** The API server takes bodies of 3 MiB, and a review can hold the object twice. */
const LARGEST_REVIEW = 8 << 20
/** The API server keeps an idle connection for 90 s, and does not repeat a POST that met a closed one. */
const KEEP_ALIVE_MS = 120_000
/** The longest timeoutSeconds that a webhook may have. */
const REQUEST_MS = 30_000
const HANDSHAKE_MS = 10_000
/** Once closing, for what may be under way on a connection that was not used yet. */
const UNUSED_MS = 1000

/** A server with limits made for the API server as its client; takes JSON only; no routes yet. */
export function createHttpsServer({ key, cert }: Certificate): HttpsServer {
  const server = Fastify({
    https: { key, cert, handshakeTimeout: HANDSHAKE_MS, headersTimeout: REQUEST_MS },
    bodyLimit: LARGEST_REVIEW,
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: REQUEST_MS,
    // While closing, what still arrives on a live connection is answered, not refused.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    // A pod may have any keys, `__proto__` too: JSON.parse makes them plain properties.
    onProtoPoisoning: 'ignore',
    onConstructorPoisoning: 'ignore',
    exposeHeadRoutes: false,
    logger: false,
  })
  server.removeContentTypeParser('text/plain')
  closeUnused(server)
  return server
}

/**
 * Node takes a connection on which nothing was ever asked for a busy one, and closing would wait
 * for it. The API server keeps such connections: Go dials ahead (net/http Transport, dialConnFor).
 */
function closeUnused(server: HttpsServer): void {
  const unused = new Set<Socket>()
  server.server.on('secureConnection', socket => {
    unused.add(socket)
    socket.once('close', () => unused.delete(socket))
  })
  server.server.on('request', ({ socket }) => unused.delete(socket))
  server.addHook('preClose', async () => {
    setTimeout(() => {
      for (const socket of unused) socket.destroy()
    }, UNUSED_MS).unref()
  })
}

/** Serves new connections with this certificate. Throws, and keeps the old one, if it is unusable. */
export function replaceCertificate(server: HttpsServer, { key, cert }: Certificate): void {
  server.server.setSecureContext({ key, cert })
}

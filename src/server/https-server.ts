import type { Server } from 'node:https'
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
  return server
}

/** Serves new connections with this certificate. Throws, and keeps the old one, if it is unusable. */
export function replaceCertificate(server: HttpsServer, { key, cert }: Certificate): void {
  server.server.setSecureContext({ key, cert })
}

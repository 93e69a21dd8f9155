import { constants } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import Fastify, { type FastifyInstance } from 'fastify'

/** PEM. */
export interface Certificate {
  key: string
  cert: string
}

export type HttpsServer = FastifyInstance<Server>

/** The API server keeps an idle connection for 90 s, and does not repeat a POST that met a closed one. */
const KEEP_ALIVE_MS = 120_000
/** The longest timeoutSeconds that a webhook may have. */
const REQUEST_MS = 30_000
const HEADERS_MS = 10_000
const HANDSHAKE_MS = 10_000
/** How often Node looks for requests that take longer. */
const CHECK_MS = 1000

/** They hold for a new certificate too. A renegotiation costs us ten times what it costs a client. */
const TLS = { minVersion: 'TLSv1.2', secureOptions: constants.SSL_OP_NO_RENEGOTIATION } as const

/**
 * A server with limits made for the API server as its client; takes no body yet; no routes. `admit` is
 * asked of each request first, before anything is done for it; one that it refuses gets no answer.
 */
export function createHttpsServer(
  { key, cert }: Certificate,
  admit: (request: IncomingMessage, response: ServerResponse) => boolean,
): HttpsServer {
  const options = {
    ...TLS,
    ...{ key, cert },
    handshakeTimeout: HANDSHAKE_MS,
    headersTimeout: HEADERS_MS,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: CHECK_MS,
  }
  const server = Fastify<Server>({
    serverFactory: handle =>
      createServer(options, (request, response) => {
        if (admit(request, response)) handle(request, response)
      }),
    // While closing, what still arrives on a live connection is answered, not refused.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    logger: false,
  })
  server.removeAllContentTypeParsers()
  return server
}

/** Serves new connections with this certificate. Throws, and keeps the old one, if it is unusable. */
export function replaceCertificate(server: HttpsServer, { key, cert }: Certificate): void {
  server.server.setSecureContext({ key, cert, ...TLS })
}

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

/**
 * Listens at an address and port. A machine without IPv6 has no `::`; every address of it is then
 * 0.0.0.0, which is what is meant. Rejects where the port is taken.
 */
export async function listen(
  server: Pick<FastifyInstance, 'listen'>,
  { address, port }: { address: string; port: number },
): Promise<void> {
  try {
    await server.listen({ host: address, port })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (address !== '::' || code !== 'EAFNOSUPPORT') throw error
    await server.listen({ host: '0.0.0.0', port })
  }
}

/**
 * Stops accepting, closes idle connections, lets running requests end; after `graceMs` cuts what is
 * left. Without that end a client that opens a connection and says nothing would hold it up.
 */
export async function stopServer(
  server: Pick<FastifyInstance, 'close'> & { server: { closeAllConnections(): void } },
  graceMs: number,
): Promise<void> {
  const cut = setTimeout(() => server.server.closeAllConnections(), graceMs)
  try {
    await server.close()
  } finally {
    clearTimeout(cut)
  }
}

import { constants } from 'node:crypto'
import { once } from 'node:events'
import { IncomingMessage, type ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import net, { type AddressInfo, type Socket } from 'node:net'
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

const acceptorsOf = new WeakMap<object, Acceptors>()

interface OneAtATime {
  /** Whether a request on this socket is not answered yet, or the socket is closed. */
  isBusy(socket: Socket): boolean
  /** A request arrived on a socket that is not busy. */
  begin(request: IncomingMessage, response: ServerResponse): void
  /** A request arrived on a busy socket. It gets no answer, and nothing after it is parsed. */
  refuse(socket: Socket): void
}

/**
 * Node parses all requests that have arrived on a socket, and creates two objects for each of them. Its
 * parser stops only at a request that changes the protocol (Node lib/_http_server.js,
 * `parserOnIncoming`). So a request on a busy socket is treated as such a request, which is then refused.
 */
function stoppingAt(isBusy: OneAtATime['isBusy']): typeof IncomingMessage {
  return class extends IncomingMessage {
    #changesProtocol = false

    /** `null` comes from the constructor above, the rest from the parser. */
    set upgrade(asked: boolean | null) {
      if (asked !== null) this.#changesProtocol = asked || isBusy(this.socket)
    }

    get upgrade(): boolean {
      return this.#changesProtocol
    }
  }
}

/** A server with limits made for the API server as its client; takes no body yet; no routes. */
export function createHttpsServer(
  { key, cert }: Certificate,
  { isBusy, begin, refuse }: OneAtATime,
): HttpsServer {
  const options = {
    IncomingMessage: stoppingAt(isBusy),
    shouldUpgradeCallback: ({ socket }: IncomingMessage) => isBusy(socket),
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
        begin(request, response)
        handle(request, response)
      }),
    // While closing, what still arrives on a live connection is answered, not refused.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    logger: false,
  })
  server.removeAllContentTypeParsers()
  server.server.on('upgrade', (_request, socket) => refuse(socket as Socket))
  const acceptors = addAcceptors(server.server)
  server.addHook('preClose', async () => acceptors.stop())
  acceptorsOf.set(server.server, acceptors)
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
  const listenAt = async (host: string) => server.listen(await shareablePort(host, port))
  try {
    await listenAt(address)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (address !== '::' || code !== 'EAFNOSUPPORT') throw error
    await listenAt('0.0.0.0')
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
    await acceptorsOf.get(server.server)?.ended()
  } finally {
    clearTimeout(cut)
  }
}

/**
 * A turn of the event loop accepts one connection for each listening socket (libuv src/unix/stream.c,
 * `uv__server_io`). With one socket, a client that opens many connections fills the kernel's queue, and
 * the API server's connection waits in it for seconds.
 */
const ACCEPTORS = 4

/** Several sockets can listen on one port (SO_REUSEPORT) and get its connections in equal parts. */
const canShare = process.platform === 'linux'

interface Acceptors {
  /** Accepts no more. */
  stop(): void
  /** Resolves when each connection that these sockets accepted has ended. Call `stop` first. */
  ended(): Promise<unknown>
}

/**
 * Options for `listen` that let more sockets listen at the same port. They would let another process do
 * so too. So this function first listens without them, and rejects with EADDRINUSE if the port is in use.
 */
async function shareablePort(
  host: string,
  port: number,
): Promise<{ host: string; port: number; reusePort?: true }> {
  if (!canShare) return { host, port }
  const probe = net.createServer()
  probe.listen({ host, port })
  await once(probe, 'listening')
  probe.close()
  await once(probe, 'close')
  return { host, port, reusePort: true }
}

/** Opens the other sockets as soon as the server listens, where its own socket allows that. */
function addAcceptors(server: Server): Acceptors {
  const others: net.Server[] = []
  server.once('listening', () => {
    const { address: host, port } = server.address() as AddressInfo
    for (let count = 1; count < ACCEPTORS && canShare; count++) {
      const other = net.createServer({ noDelay: true }, socket => server.emit('connection', socket))
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

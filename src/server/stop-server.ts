import type { Server } from 'node:http'
import type { FastifyInstance } from 'fastify'

/**
 * Stops accepting, closes idle connections, lets running requests end; after `graceMs` cuts what is
 * left. Without that end a client that opens a connection and says nothing would hold it up.
 */
export async function stopServer(
  server: Pick<FastifyInstance, 'close'> & { server: Pick<Server, 'closeAllConnections'> },
  graceMs: number,
): Promise<void> {
  const cut = setTimeout(() => server.server.closeAllConnections(), graceMs)
  try {
    await server.close()
  } finally {
    clearTimeout(cut)
  }
}

import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { reset } from '../../reset.ts'

export interface Gateway {
  url: string
  stop(): Promise<void>
}

interface Behind {
  hostNames: string[]
  /** Takes a connection to one of `hostNames`. */
  accept(client: Socket): void
  /** While this is true, every connection is reset. */
  isDown(): boolean
}

/**
 * An HTTP CONNECT proxy that replaces DNS: it hands connections to `<host>:443` of the environment's
 * hosts over to its TLS server. Every other target gets 502, so that no connection leaves the machine.
 */
export async function openGateway({ hostNames, accept, isDown }: Behind): Promise<Gateway> {
  const server = createServer((_request, response) => {
    response.writeHead(502, { connection: 'close' }).end('this gateway only knows CONNECT\n')
  })
  server.on('connect', (request: IncomingMessage, client: Socket, head: Buffer) => {
    client.on('error', () => client.destroy())
    if (isDown()) return reset(client)
    if (!hostNames.some(host => request.url === `${host}:443`)) {
      return client.end(
        'HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n',
      )
    }
    client.write('HTTP/1.1 200 Connection established\r\n\r\n')
    client.unshift(head)
    return accept(client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: async () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { reset } from '../../reset.ts'

export interface Gateway {
  url: string
  /** Connects `hostNames` to this port of 127.0.0.1 from now on. */
  leadTo(port: number): void
  /** Resets the client whose tunnel has this local port; false if there is none. */
  reset(tunnelPort: number | undefined): boolean
  resetAll(): void
  stop(): Promise<void>
}

/**
 * An HTTP CONNECT proxy that replaces DNS: it connects `<host>:443` of the environment's hosts to its
 * TLS listener. Every other target gets 502, so that no connection leaves the machine. While
 * `isDown`, every connection is reset.
 */
export async function openGateway(hostNames: string[], isDown: () => boolean): Promise<Gateway> {
  const tunnels = new Map<Socket, Socket>()
  let target = 0
  const server = createServer((_request, response) => {
    response.writeHead(502, { connection: 'close' }).end('this gateway only knows CONNECT\n')
  })
  server.on('connect', (request: IncomingMessage, client: Socket, head: Buffer) => {
    client.on('error', () => client.destroy())
    const known = hostNames.some(host => request.url === `${host}:443`)
    if (isDown()) reset(client)
    else if (known) openTunnel(tunnels, { client, head, port: target })
    else client.end('HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const cut = (upstream: Socket, client: Socket) => {
    reset(client)
    upstream.destroy()
  }
  const resetAll = () => {
    for (const [upstream, client] of tunnels) cut(upstream, client)
  }
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    leadTo: port => {
      target = port
    },
    reset: tunnelPort => {
      const found = [...tunnels].find(([upstream]) => upstream.localPort === tunnelPort)
      if (found) cut(...found)
      return found !== undefined
    },
    resetAll,
    stop: async () => {
      server.close()
      resetAll()
      server.closeAllConnections()
    },
  }
}

function openTunnel(
  tunnels: Map<Socket, Socket>,
  { client, head, port }: { client: Socket; head: Buffer; port: number },
): void {
  const upstream = connect({ host: '127.0.0.1', port, noDelay: true })
  upstream.once('connect', () => {
    tunnels.set(upstream, client)
    client.setNoDelay()
    client.write('HTTP/1.1 200 Connection established\r\n\r\n')
    upstream.write(head)
    client.pipe(upstream).pipe(client)
  })
  upstream.on('error', () => client.destroy())
  upstream.on('close', () => tunnels.delete(upstream))
  client.on('close', () => upstream.destroy())
}

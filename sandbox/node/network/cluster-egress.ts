import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createServer, type IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { KubeConfig } from '@kubernetes/client-node'
import { joinSockets } from '../../join-sockets.ts'
import { realAddress } from '../addresses.ts'
import { followServices } from './service-network.ts'

/**
 * The way of the API server into the cluster's network: it has no route to a ClusterIP, so it is
 * given an EgressSelectorConfiguration (kubernetes.io docs, "Set up Konnectivity service") with
 * `egressSettings` below, and asks here: CONNECT clusterIP:port. So a webhook configuration that
 * names a Service works as it is, without root.
 */
export async function startClusterEgress(options: {
  kubeConfig: KubeConfig
  /** The path of the unix socket that the API server was given. */
  socket: string
  delayMs?: number
}): Promise<{ stop(): Promise<void> }> {
  const network = await followServices(options.kubeConfig, { delayMs: options.delayMs ?? 200 })
  const open = new Set<Socket>()
  const server = createServer()

  server.on('connect', (request: IncomingMessage, client: Socket) => {
    open.add(client)
    client.once('close', () => open.delete(client))
    const { hostname, port } = new URL(`tcp://${request.url}`)
    const service = network.serviceAt(hostname)
    // What is no Service is a node: the API server asks it for the logs of a pod.
    const backend = service
      ? network.pick(service, Number(port))
      : { address: realAddress(hostname), port: Number(port) }
    if (!backend) {
      client.end(`HTTP/1.1 503 no endpoints for ${service}\r\n\r\n`)
      return
    }
    const joined = connect({ host: backend.address, port: backend.port })
    const refuse = () =>
      client.end(`HTTP/1.1 502 ${service ?? hostname} refuses the connection\r\n\r\n`)
    joined.once('error', refuse)
    joined.once('connect', () => {
      joined.off('error', refuse)
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      joinSockets(client, joined)
    })
    client.once('error', () => joined.destroy())
  })
  await rm(options.socket, { force: true })
  server.listen(options.socket)
  await once(server, 'listening')
  return {
    async stop() {
      server.close()
      for (const socket of open) socket.destroy()
      await network.stop()
      await rm(options.socket, { force: true })
    },
  }
}

/** What `--egress-selector-config-file` of kube-apiserver must say so that it asks at `socket`. */
export function egressSettings(socket: string): string {
  return JSON.stringify({
    apiVersion: 'apiserver.k8s.io/v1beta1',
    kind: 'EgressSelectorConfiguration',
    egressSelections: [
      {
        name: 'cluster',
        connection: {
          proxyProtocol: 'HTTPConnect',
          transport: { uds: { udsName: socket } },
        },
      },
    ],
  })
}

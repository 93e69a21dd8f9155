import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { KubeConfig } from '@kubernetes/client-node'
import { joinSockets } from '../../join-sockets.ts'
import { reset } from '../../reset.ts'
import { followServices } from './service-network.ts'

/**
 * A port of this machine that stands for a port of a Service: each new connection goes to the
 * next of its backends and stays there, whatever becomes of the backend; without a backend it is
 * refused (reset).
 */
export async function startServiceBalancer(options: {
  kubeConfig: KubeConfig
  namespace: string
  service: string
  port: number
  delayMs?: number
}): Promise<{ port: number; stop(): Promise<void> }> {
  const { kubeConfig, namespace, service, port, delayMs = 200 } = options
  const network = await followServices(kubeConfig, { delayMs })
  const open = new Set<Socket>()
  const server = createServer(socket => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    const backend = network.pick(`${namespace}/${service}`, port)
    if (backend) joinSockets(socket, connect({ host: backend.address, port: backend.port }))
    else reset(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async stop() {
      server.close()
      for (const socket of open) socket.destroy()
      await network.stop()
    },
  }
}

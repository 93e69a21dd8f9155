import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { joinSockets } from '../join-sockets.ts'
import { reset } from '../reset.ts'

/** One process behind the balancer. */
export interface Backend {
  port: number
  isReady(): Promise<boolean>
}

export interface Balancer {
  readonly port: number
  /** Sends new connections to those of these that are ready. */
  leadTo(backends: readonly Backend[]): void
  stop(): Promise<void>
}

/** Interval between readiness probes; the kubelet's is longer. */
const probeMs = 200

/**
 * Does for processes beside the cluster what a Service does with kube-proxy. Each new connection goes
 * to the next ready process and stays there. If no process is ready, the connection is reset.
 */
export async function startBalancer(): Promise<Balancer> {
  let backends: readonly Backend[] = []
  let ready: readonly Backend[] = []
  let turn = 0
  const open = new Set<Socket>()
  const server = createServer(socket => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    const backend = ready[turn++ % ready.length]
    if (backend) joinSockets(socket, connect({ host: '127.0.0.1', port: backend.port }))
    else reset(socket)
  })
  const probe = async () => {
    const answers = await Promise.all(backends.map(each => each.isReady().catch(() => false)))
    ready = backends.filter((_, index) => answers[index])
  }
  const probing = setInterval(() => void probe(), probeMs)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    leadTo: given => {
      backends = given
    },
    async stop() {
      clearInterval(probing)
      server.close()
      for (const socket of open) socket.destroy()
    },
  }
}

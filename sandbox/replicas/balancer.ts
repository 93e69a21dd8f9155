import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { joinSockets } from '../node/network/service-balancer.ts'
import { reset } from '../reset.ts'

/** One process behind the balancer: where it listens, and whether it says that it is ready. */
export interface Backend {
  port: number
  isReady(): Promise<boolean>
}

export interface Balancer {
  readonly port: number
  /** From now on connections go to these, as far as they are ready. */
  leadTo(backends: readonly Backend[]): void
  stop(): Promise<void>
}

/** How often readiness is asked for; the kubelet would ask less often. */
const probeMs = 200

/**
 * Plays the Service in front of processes that run beside the cluster, as kube-proxy would: each
 * new connection goes to the next ready one and stays there, whatever becomes of it; where none is
 * ready, it is refused (reset).
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

import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'

/**
 * The addresses of one node: a range of 253 pods, of which no other node on this machine has any.
 */
export interface PodAddresses {
  readonly node: string
  /** A pod's address as the API server shall know it. */
  take(): string
  /** From now on `listener` has the connections to the node's own address, port `KUBELET_PORT`. */
  serve(listener: (socket: Socket) => void): void
  release(): Promise<void>
}

/**
 * Where a pod is really reached. The API server refuses loopback addresses in EndpointSlices
 * (ValidateEndpointIP in kubernetes/kubernetes), and only loopback needs neither root nor a
 * network, so pod 10.a.b.c listens on 127.a.b.c: every such address is local on Linux.
 */
export function realAddress(podIP: string): string {
  return podIP.replace(/^10\./, '127.')
}

export const KUBELET_PORT = 10250

/** Claims a free range by listening at its node's address for as long as the range is in use. */
export async function claimAddresses(): Promise<PodAddresses> {
  for (let tries = 0; tries < 50; tries++) {
    const range = `10.${randomInt(1, 255)}.${randomInt(0, 256)}`
    const claim = createServer().unref()
    // Nobody is served before there is somebody to serve.
    let serve = (socket: Socket): void => void socket.destroy()
    claim.on('connection', socket => serve(socket))
    claim.listen(KUBELET_PORT, realAddress(`${range}.254`))
    const claimed = await once(claim, 'listening').then(
      () => true,
      () => false,
    )
    if (claimed) {
      const pods = rangeOf(range, () => claim.close())
      return {
        ...pods,
        serve: listener => {
          serve = listener
        },
      }
    }
  }
  throw new Error('found no free range of loopback addresses for the pods')
}

function rangeOf(range: string, unclaim: () => void): Omit<PodAddresses, 'serve'> {
  let taken = 0
  return {
    node: `${range}.254`,
    // In turn, so that an address is not used again while anybody remembers its last pod.
    take: () => `${range}.${1 + (taken++ % 253)}`,
    async release() {
      unclaim()
    },
  }
}

import type { Socket } from 'node:net'
import { reset } from './reset.ts'

/** The end of one side, in order or not, is that of the other. */
export function joinSockets(one: Socket, other: Socket): void {
  one.pipe(other)
  other.pipe(one)
  for (const [socket, peer] of [
    [one, other],
    [other, one],
  ] as const) {
    socket.setNoDelay(true)
    socket.on('error', () => reset(peer))
    socket.on('close', () => peer.destroy())
  }
}

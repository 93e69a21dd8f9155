import type { Socket } from 'node:net'

/**
 * Resets a connection, where that can be done: a unix socket has no reset, and a socket that is
 * being shut down refuses it (libuv, uv_tcp_close_reset: EINVAL), after which Node takes it for
 * closed, leaves it open and does not end any more.
 */
export function reset(socket: Socket): void {
  if (socket.remoteFamily === undefined || socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

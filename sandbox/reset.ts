import type { Socket } from 'node:net'

/**
 * Resets a connection if that is possible. A unix socket cannot be reset. A socket that is being shut
 * down refuses it (libuv, uv_tcp_close_reset: EINVAL); Node then regards it as closed, leaves it
 * open, and does not exit.
 */
export function reset(socket: Socket): void {
  if (socket.remoteFamily === undefined || socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

import { createServer } from 'node:net'

/** No program of the sandbox listens on more. */
type Ports = [number, number, number]

/**
 * Calls `start` with ports of 127.0.0.1 that are free now. If another program takes one of them first
 * (the error message says so), tries again with other ports, up to five times.
 */
export async function onFreePorts<T>(start: (...ports: Ports) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(...(await freePorts()))
    } catch (error) {
      const taken = /address already in use|EADDRINUSE/.test((error as Error).message)
      if (!taken || attempt === 5) throw error
    }
  }
}

// Below the range of ports for outgoing connections (32768 and up): a program that is restarted finds
// its port free, and clients that connect in between are never connected to themselves.
const FIRST_PORT = 12_000
const LAST_PORT = 32_000

async function freePorts(): Promise<Ports> {
  const ports = new Set<number>()
  while (ports.size < 3) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT))
    if (await isFree(port)) ports.add(port)
  }
  return [...ports] as Ports
}

async function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

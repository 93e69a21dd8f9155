import { once } from 'node:events'
import { Agent, createServer, type Server } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { KubeConfig } from '@kubernetes/client-node'
import { kubeconfigThrough, ownCertificate } from './fault-proxy/access.ts'
import { type Fault, type Match, type ProxyState, relay } from './fault-proxy/relay.ts'

export type { Answer, Fault, Hooks, Match, ProxiedRequest } from './fault-proxy/relay.ts'

export interface FaultProxy extends Pick<ProxyState, 'requests' | 'hooks'> {
  readonly url: string
  /** The proxy's own CA, PEM. */
  readonly ca: string
  /**
   * The text of a kubeconfig like `base` that goes through the proxy. The proxy terminates TLS, so
   * only tokens work.
   */
  kubeconfig(base: KubeConfig): string
  /**
   * The next `times` (default: all) matching requests get the fault. Returns a function that removes it.
   */
  fault(match: Match, fault: Fault, times?: number): () => void
  /** Each request waits this long before it is passed on. */
  latency(ms: number): void
  /** Closes every connection. */
  reset(): void
  /**
   * The present connections stay open, but no more data arrives from them: they are half-open.
   */
  freeze(): void
  /** The number of open watches that match. */
  watches(match: Match): number
  /** Writes an event into the open watches that match; returns their number. */
  inject(match: Match, event: { type: string; object: unknown }): number
  /**
   * Behaves like an API server that is down: connections are closed and refused until `up`.
   */
  down(): Promise<void>
  up(): Promise<void>
  /** The number of open connections. */
  connections(): number
  stop(): Promise<void>
}

/**
 * Starts a TLS proxy on 127.0.0.1 in front of the API server at `target`. It forwards everything
 * until a fault is set.
 */
export async function startFaultProxy(target: { url: string; ca: string }): Promise<FaultProxy> {
  const { cert, private: key } = await ownCertificate()
  const state = createState(target)
  const sockets = new Set<Socket>()
  const server = createServer({ cert, key, keepAliveTimeout: 120_000 }, (request, response) => {
    relay(state, request, response).catch(() => response.destroy())
  })
  server.on('secureConnection', (socket: Socket) => {
    // Its handshake began before the server was closed.
    if (!server.listening) socket.destroy()
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    // Its handshake began before the server was closed.
    if (!server.listening) socket.destroy()
  })
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  const port = await listen(server, 0)
  const url = `https://127.0.0.1:${port}`
  return {
    ...controls(state),
    url,
    ca: cert,
    kubeconfig: base => kubeconfigThrough(url, cert, base),
    reset: cut,
    freeze() {
      for (const socket of sockets) state.frozen.add(socket)
    },
    down: () => close(server, cut),
    async up() {
      await listen(server, port)
    },
    connections: () => sockets.size,
    async stop() {
      await close(server, cut)
      state.agent.destroy()
    },
  }
}

function createState({ url, ca }: { url: string; ca: string }): ProxyState {
  return {
    target: url,
    agent: new Agent({ ca, keepAlive: true }),
    requests: [],
    hooks: {},
    faults: [],
    frozen: new WeakSet(),
    streams: new Set(),
    latencyMs: 0,
  }
}

function controls(
  state: ProxyState,
): Pick<FaultProxy, 'requests' | 'hooks' | 'fault' | 'latency' | 'watches' | 'inject'> {
  const openWatches = (match: Match) =>
    [...state.streams].filter(({ request, response }) => match(request) && !response.writableEnded)
  return {
    requests: state.requests,
    hooks: state.hooks,
    fault(match, fault, times = Number.POSITIVE_INFINITY) {
      const rule = { match, fault, times }
      state.faults.push(rule)
      return () => {
        rule.times = 0
      }
    },
    latency(ms) {
      state.latencyMs = ms
    },
    watches: match => openWatches(match).length,
    inject(match, event) {
      const open = openWatches(match)
      for (const { response } of open) response.write(`${JSON.stringify(event)}\n`)
      return open.length
    },
  }
}

async function listen(server: Server, port: number): Promise<number> {
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

async function close(server: Server, cut: () => void): Promise<void> {
  if (!server.listening) return
  const closed = once(server, 'close')
  server.close()
  cut()
  await closed
}

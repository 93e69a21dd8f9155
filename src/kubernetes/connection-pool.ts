import { isDeepStrictEqual } from 'node:util'
import { Counter, type Registry } from 'prom-client'
import { Agent, type Dispatcher, ProxyAgent } from 'undici'
import { KubernetesError } from './errors.ts'
import type { Credentials } from './kube-config.ts'
import type { ServerClock } from './server-clock.ts'

/** Ordinary requests at once, and room for the watches, which hold a connection each. */
const CONNECTIONS = 16 + 8

interface ConnectionPool {
  /** The pool for these TLS settings. A new one replaces it when they change, and after a timeout. */
  dispatcher(tls: Credentials['tls']): Dispatcher
  /** A request was aborted. The pool does not see this where the answer has begun. */
  aborted(reason: unknown): void
  close(): Promise<void>
}

interface PoolDependencies {
  metrics: Registry
  /** Observes the date of each answer. */
  clock: ServerClock | undefined
}

interface PoolSettings {
  proxyUrl: string | undefined
  timeoutMs: number
}

/**
 * One set of connections, kept while the TLS settings stay the same: the client library alone opens
 * a new connection for each request. Counts every request that leaves the process.
 */
export function createConnectionPool(
  { metrics, clock }: PoolDependencies,
  settings: PoolSettings,
): ConnectionPool {
  const agents = new Set<Dispatcher>()
  let current: { tls: Credentials['tls']; agent: Dispatcher; dispatcher: Dispatcher } | undefined
  let closed = false
  const count = counting(metrics, clock, aborted)

  /** Requests and watches that run on these connections end there. */
  function replace(): void {
    const agent = current?.agent
    current = undefined
    if (agent === undefined) return
    const forget = () => agents.delete(agent)
    agent.close().then(forget, forget)
  }

  // Where one connection is half-open, all are likely to be, and each would cost a timeout.
  function aborted(reason: unknown): void {
    if (isTimeout(reason)) replace()
  }

  return {
    aborted,
    dispatcher(tls) {
      if (closed) throw new KubernetesError('the connections to the API server are closed')
      if (current && isDeepStrictEqual(current.tls, tls)) return current.dispatcher
      replace()
      const agent = createAgent(tls, settings)
      agents.add(agent)
      current = { tls, agent, dispatcher: agent.compose(count) }
      return current.dispatcher
    },
    async close() {
      closed = true
      await Promise.all([...agents].map(agent => agent.destroy()))
    },
  }
}

function createAgent(tls: Credentials['tls'], { proxyUrl, timeoutMs }: PoolSettings): Dispatcher {
  const connection = {
    // Less than the 90 s after which the API server closes them: no request meets a closed one.
    keepAliveTimeout: 60_000,
    connections: CONNECTIONS,
    headersTimeout: timeoutMs,
    bodyTimeout: 0,
    // With HTTP/2 all watches and requests would share one connection, and one half-open connection
    // all of them.
    allowH2: false,
  }
  // Dead peers are found by the kernel as well; 30 s as in client-go, below the idle limits of load
  // balancers.
  const connect = { timeout: timeoutMs, keepAlive: true, keepAliveInitialDelay: 30_000 }
  if (proxyUrl) {
    return new ProxyAgent({ ...connection, uri: proxyUrl, requestTls: tls, connect })
  }
  return new Agent({ ...connection, connect: { ...connect, ...tls } } as Agent.Options)
}

/** An undici interceptor: counts when the headers arrive, or when it is clear that none will come. */
function counting(
  metrics: Registry,
  clock: ServerClock | undefined,
  aborted: (reason: unknown) => void,
): Dispatcher.DispatcherComposeInterceptor {
  const requests = new Counter({
    name: 'pullpass_kubernetes_requests_total',
    help: 'Requests to the API server by method and status ("failed": no answer)',
    labelNames: ['method', 'code'],
    registers: [metrics],
  })
  return dispatch => (request, handler) => {
    const { method } = request
    let answered = false
    let startedMs = performance.now()
    const counted: Dispatcher.DispatchHandler = {
      onRequestStart(controller, context) {
        // Until now it may have waited for a free connection.
        startedMs = performance.now()
        handler.onRequestStart?.(controller, context)
      },
      onRequestUpgrade: (...upgrade) => handler.onRequestUpgrade?.(...upgrade),
      onResponseStart(controller, status, headers, message) {
        answered = status >= 200
        if (answered) requests.inc({ method, code: status })
        if (answered) clock?.observe(headers.date, startedMs)
        handler.onResponseStart?.(controller, status, headers, message)
      },
      onResponseData: (controller, chunk) => handler.onResponseData?.(controller, chunk),
      onResponseEnd: (controller, trailers) => handler.onResponseEnd?.(controller, trailers),
      onResponseError(controller, error) {
        if (!answered) requests.inc({ method, code: 'failed' })
        aborted(error)
        handler.onResponseError?.(controller, error)
      },
    }
    return dispatch(request, counted)
  }
}

function isTimeout(reason: unknown): boolean {
  const { name, code } = (reason ?? {}) as { name?: unknown; code?: unknown }
  return name === 'TimeoutError' || code === 'UND_ERR_HEADERS_TIMEOUT'
}

import { isDeepStrictEqual } from 'node:util'
import { Counter, Registry } from 'prom-client'
import { Agent, type Dispatcher, ProxyAgent } from 'undici'
import { KubernetesError } from './errors.ts'
import type { Credentials } from './kube-config.ts'
import type { ServerClock } from './server-clock.ts'

/** Ordinary requests at once, and room for the watches, which hold a connection each. */
const CONNECTIONS = 16 + 8

interface ConnectionPool {
  /**
   * The pool for these TLS settings; a new one takes over when they have changed, and after a
   * timeout.
   */
  dispatcher(tls: Credentials['tls']): Dispatcher
  /**
   * To be told why a request was given up. The pool cannot see that of an answer that had begun.
   */
  givenUp(reason: unknown): void
  close(): Promise<void>
}

interface ConnectionPoolOptions {
  server: string
  proxyUrl: string | undefined
  timeoutMs: number
  metrics?: Registry
  /** Is shown the date of each answer. */
  clock?: Pick<ServerClock, 'observe'>
}

/**
 * One set of connections to `server`, kept while the TLS settings stay the same: the client library
 * by itself makes a new agent, so a new connection, for each request. Counts every request that
 * leaves the process.
 */
export function createConnectionPool(options: ConnectionPoolOptions): ConnectionPool {
  const agents = new Set<Dispatcher>()
  let current: { tls: Credentials['tls']; agent: Dispatcher; dispatcher: Dispatcher } | undefined
  let closed = false
  const count = counting(options.metrics ?? new Registry(), { ...options, givenUp })

  /** What is under way on these connections, watches among it, comes to its end there. */
  function retire(): void {
    const agent = current?.agent
    current = undefined
    agent?.close().then(
      () => agents.delete(agent),
      () => agents.delete(agent),
    )
  }

  // Where one connection is half-open, all are likely to be, and each would cost a timeout.
  function givenUp(reason: unknown): void {
    if (isTimeout(reason)) retire()
  }

  return {
    givenUp,
    dispatcher(tls) {
      if (closed) throw new KubernetesError('the connections to the API server are closed')
      if (current && isDeepStrictEqual(current.tls, tls)) return current.dispatcher
      retire()
      const agent = createAgent(tls, options)
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

function createAgent(tls: Credentials['tls'], options: ConnectionPoolOptions): Dispatcher {
  const connection = {
    // The API server closes idle connections after 90 s; whoever closes first decides about resets.
    keepAliveTimeout: 60_000,
    connections: CONNECTIONS,
    headersTimeout: options.timeoutMs,
    bodyTimeout: 0,
    // With HTTP/2 all watches and requests would share one connection, and one half-open connection
    // all of them.
    allowH2: false,
  }
  // Dead peers are found by the kernel as well; 30 s as in client-go, below the idle limits of load
  // balancers.
  const connect = { timeout: options.timeoutMs, keepAlive: true, keepAliveInitialDelay: 30_000 }
  if (options.proxyUrl) {
    return new ProxyAgent({ ...connection, uri: options.proxyUrl, requestTls: tls, connect })
  }
  return new Agent({ ...connection, connect: { ...connect, ...tls } } as Agent.Options)
}

/**
 * An undici interceptor: counts when the headers are there, or when it is clear that none will
 * come.
 */
function counting(
  metrics: Registry,
  { server, clock, givenUp }: ConnectionPoolOptions & { givenUp: (reason: unknown) => void },
): Dispatcher.DispatcherComposeInterceptor {
  const prefix = new URL(server).pathname.replace(/\/$/, '')
  const requests = new Counter({
    name: 'pullpass_kubernetes_requests_total',
    help: 'Requests to the API server by verb, resource and status ("failed": no answer)',
    labelNames: ['verb', 'resource', 'code'],
    registers: [metrics],
  })
  return dispatch => (request, handler) => {
    const info = requestInfo(request.method, request.path.slice(prefix.length))
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
        if (answered) requests.inc({ ...info, code: status })
        if (answered) clock?.observe(headers.date, startedMs)
        handler.onResponseStart?.(controller, status, headers, message)
      },
      onResponseData: (controller, chunk) => handler.onResponseData?.(controller, chunk),
      onResponseEnd: (controller, trailers) => handler.onResponseEnd?.(controller, trailers),
      onResponseError(controller, error) {
        if (!answered) requests.inc({ ...info, code: 'failed' })
        givenUp(error)
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

/**
 * What a request is to the API server, as RBAC and audit name it.
 *
 * | path, after the server's own prefix                        | resource                |
 * |------------------------------------------------------------|-------------------------|
 * | /api/VERSION[/namespaces/NS]/RESOURCE[/NAME[/SUB]]         | RESOURCE or RESOURCE/SUB |
 * | /apis/GROUP/VERSION[/namespaces/NS]/RESOURCE[/NAME[/SUB]]  | the same                |
 * | /api/VERSION/namespaces/NAME[/status or /finalize]         | namespaces              |
 * | anything else                                              | none                    |
 */
interface RequestInfo {
  verb: string
  /**
   * Never holds the name of an object, so the number of values is bounded by what this program asks
   * for.
   */
  resource: string
}

/**
 * Verb and resource of `method` and `target` (path with query), by the rules of
 * kubernetes/apiserver pkg/endpoints/request/requestinfo.go.
 */
export function requestInfo(method: string, target: string): RequestInfo {
  const [path = '', query = ''] = target.split('?', 2)
  const parts = resourceParts(path.split('/').filter(Boolean))
  if (!parts) return { verb: method.toLowerCase(), resource: 'none' }
  const [resource, name, subresource] = parts
  return {
    verb: verbOf(method, name !== undefined, isWatch(query)),
    resource: subresource === undefined ? resource : `${resource}/${subresource}`,
  }
}

type ResourceParts = [resource: string, name?: string, subresource?: string]

function resourceParts(segments: string[]): ResourceParts | undefined {
  const rest = afterVersion(segments)
  if (!rest?.[0]) return undefined
  const inNamespace = rest[0] === 'namespaces' && rest.length > 2 && !NAMESPACE_PARTS.has(rest[2])
  return (inNamespace ? rest.slice(2) : rest).slice(0, 3) as ResourceParts
}

const NAMESPACE_PARTS = new Set<string | undefined>(['status', 'finalize'])

function afterVersion(segments: string[]): string[] | undefined {
  if (segments[0] === 'api') return segments.slice(2)
  if (segments[0] === 'apis') return segments.slice(3)
  return undefined
}

function isWatch(query: string): boolean {
  return ['true', '1'].includes(new URLSearchParams(query).get('watch') ?? '')
}

const VERBS: Record<string, string> = { POST: 'create', PUT: 'update', PATCH: 'patch' }

function verbOf(method: string, named: boolean, watch: boolean): string {
  if (method === 'GET' && watch) return 'watch'
  if (method === 'GET') return named ? 'get' : 'list'
  if (method === 'DELETE') return named ? 'delete' : 'deletecollection'
  return VERBS[method] ?? method.toLowerCase()
}

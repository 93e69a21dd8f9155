import type { KubeConfig, RequestContext } from '@kubernetes/client-node'
import {
  AdmissionregistrationV1Api,
  CoordinationV1Api,
  CoreV1Api,
  createConfiguration,
  EventsV1Api,
  ServerConfiguration,
} from '@kubernetes/client-node'
import type { Registry } from 'prom-client'
import { type Dispatcher, request } from 'undici'
import { createConnectionPool } from './connection-pool.ts'
import { inTime } from './errors.ts'
import { readCredentials } from './kube-config.ts'
import type { ServerClock } from './server-clock.ts'

export { asKubernetesError, KubernetesError, wordsOf } from './errors.ts'

/** A streamed answer. Whoever gets it must read `body` to its end, or destroy it. */
export interface OpenedResponse {
  status: number
  headers: Record<string, string | string[] | undefined>
  body: AsyncIterable<Uint8Array> & { text(): Promise<string>; destroy(): void }
}

export interface KubernetesClient {
  readonly core: CoreV1Api
  readonly coordination: CoordinationV1Api
  readonly admissionregistration: AdmissionregistrationV1Api
  readonly events: EventsV1Api
  /**
   * GET over the same pool and credentials; resolves when the headers are there, whatever the
   * status.
   */
  open(
    path: string,
    query: Record<string, string>,
    options: { signal: AbortSignal },
  ): Promise<OpenedResponse>
  /** Ends what is under way and closes every connection. */
  close(): Promise<void>
}

interface KubernetesClientOptions {
  kubeConfig: KubeConfig
  timeoutMs: number
  metrics?: Registry
  /** Is shown the date of each answer. */
  clock?: Pick<ServerClock, 'observe'>
}

const USER_AGENT = 'pullpass'

/**
 * The one way to the API server: one connection pool and `timeoutMs` for every request (for `open`:
 * until the headers). Credentials are read anew for each request, so rotated tokens and CAs need no
 * restart, and a file that is missing for a moment fails that request only. Calls reject with what
 * asKubernetesError understands.
 */
export function createKubernetesClient(options: KubernetesClientOptions): KubernetesClient {
  const { kubeConfig, timeoutMs } = options
  const cluster = kubeConfig.getCurrentCluster()
  if (!cluster) throw new Error('the kubeconfig names no current cluster')
  const server = cluster.server.replace(/\/+$/, '')
  const pool = createConnectionPool({ ...options, server, proxyUrl: cluster.proxyUrl })

  const authorize: Authorize = async () => {
    // A credential plug-in is a program of somebody else's: it may hang.
    const { headers, tls } = await inTime(readCredentials(kubeConfig), timeoutMs)
    return { headers: { 'User-Agent': USER_AGENT, ...headers }, dispatcher: pool.dispatcher(tls) }
  }

  const configuration = createConfiguration({
    baseServer: new ServerConfiguration(server, {}),
    authMethods: { default: authentication(authorize) },
    // Exactly one: the library reverses this list in place at each call.
    promiseMiddleware: [
      { pre: async context => limited(context, timeoutMs), post: async response => response },
    ],
  })

  return {
    core: new CoreV1Api(configuration),
    coordination: new CoordinationV1Api(configuration),
    admissionregistration: new AdmissionregistrationV1Api(configuration),
    events: new EventsV1Api(configuration),
    async open(path, query, { signal }) {
      const { headers, dispatcher } = await authorize()
      const url = `${server}${path}?${new URLSearchParams(query)}`
      const accepted = { ...headers, Accept: 'application/json' }
      signal.addEventListener('abort', () => pool.givenUp(signal.reason), { once: true })
      const response = await request(url, { headers: accepted, dispatcher, signal })
      return { status: response.statusCode, headers: response.headers, body: response.body }
    },
    close: pool.close,
  }
}

type Authorize = () => Promise<{ headers: Record<string, string>; dispatcher: Dispatcher }>

function authentication(authorize: Authorize) {
  return {
    getName: () => 'kubeconfig',
    async applySecurityAuthentication(context: RequestContext) {
      const { headers, dispatcher } = await authorize()
      for (const [name, value] of Object.entries(headers)) context.setHeaderParam(name, value)
      context.setDispatcher(dispatcher)
    },
  }
}

function limited(context: RequestContext, timeoutMs: number): RequestContext {
  context.setSignal(AbortSignal.timeout(timeoutMs))
  return context
}

import { setTimeout as sleep } from 'node:timers/promises'
import type { KubeConfig, RequestContext } from '@kubernetes/client-node'
import {
  AdmissionregistrationV1Api,
  CoordinationV1Api,
  CoreV1Api,
  createConfiguration,
  EventsV1Api,
  PatchStrategy,
  ServerConfiguration,
  setHeaderOptions,
} from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { Registry } from 'prom-client'
import { type Dispatcher, request } from 'undici'
import { inTime } from '../time-limit.ts'
import { createConnectionPool } from './connection-pool.ts'
import { asKubernetesError } from './errors.ts'
import { readCredentials } from './kube-config.ts'
import type { ServerClock } from './server-clock.ts'

export { asKubernetesError, KubernetesError, unlessStatus, wordsOf } from './errors.ts'

/** A streamed answer. The caller reads `body` to its end, or destroys it. */
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

interface ClientDependencies {
  kubeConfig: KubeConfig
  metrics?: Registry
  /** Observes the date of each answer. */
  clock?: ServerClock
}

const USER_AGENT = 'pullpass'

/**
 * The one way to the API server: one connection pool and `timeoutMs` for every request (for `open`:
 * until the headers). Credentials are read anew for each request, so rotated tokens and CAs need no
 * restart, and a file that is missing for a moment fails that request only. Calls reject with what
 * asKubernetesError understands.
 */
export function createKubernetesClient(
  { kubeConfig, metrics = new Registry(), clock }: ClientDependencies,
  { timeoutMs }: { timeoutMs: number },
): KubernetesClient {
  const cluster = kubeConfig.getCurrentCluster()
  if (!cluster) throw new Error('the kubeconfig names no current cluster')
  const server = cluster.server.replace(/\/+$/, '')
  const pool = createConnectionPool({ metrics, clock }, { proxyUrl: cluster.proxyUrl, timeoutMs })

  const authorize: Authorize = async () => {
    // A credential plug-in is another program: it may hang.
    const { headers, tls } = await inTime(readCredentials(kubeConfig), { ms: timeoutMs })
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
      signal.addEventListener('abort', () => pool.aborted(signal.reason), { once: true })
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

/** The UID of kube-system stands for the cluster. Resolves when the API server gives it. */
export async function readClusterId(dependencies: {
  client: KubernetesClient
  logger: Logger
}): Promise<string> {
  const { client, logger } = dependencies
  for (;;) {
    try {
      const { metadata } = await client.core.readNamespace({ name: 'kube-system' })
      if (metadata?.uid !== undefined) return metadata.uid
    } catch (error) {
      const problem = asKubernetesError('read Namespace kube-system', error).message
      logger.warn({ problem }, 'cannot read the identity of the cluster')
    }
    await sleep(1000)
  }
}

/** Options that make a PATCH a server-side apply. */
export function serverSideApply() {
  return setHeaderOptions('Content-Type', PatchStrategy.ServerSideApply)
}

function limited(context: RequestContext, timeoutMs: number): RequestContext {
  context.setSignal(AbortSignal.timeout(timeoutMs))
  return context
}

import type { V1Namespace, V1Pod, V1Secret } from '@kubernetes/client-node'
import { Agent, fetch } from 'undici'
import type { ControlPlane } from '../../sandbox/control-plane.ts'
import { waitFor } from '../../sandbox/processes.ts'

/** The answer of the API server to a request. */
export interface Answer<T> {
  status: number
  body: T & { message?: string }
  warnings: string[]
}

/** Requests to the cluster as administrator, in plain JSON: objects are sent exactly as written. */
export interface Cluster {
  ask<T>(method: string, path: string, body?: unknown): Promise<Answer<T>>
  /** A new namespace in which pods can be created at once; opted in unless `labels` differ. */
  namespace(name: string, labels?: Record<string, string>): Promise<void>
  label(name: string, value: 'enabled' | null): Promise<void>
  create(namespace: string, pod: V1Pod, query?: string): Promise<Answer<V1Pod>>
  secret(namespace: string): Promise<V1Secret | undefined>
  /** Waits until the namespace has a pull secret for which `holds`. */
  whenSecret(
    namespace: string,
    holds?: (secret: V1Secret) => boolean,
    withinMs?: number,
  ): Promise<V1Secret>
  whenNoSecret(namespace: string, withinMs?: number): Promise<void>
  close(): Promise<void>
}

export const optedIn = { 'pullpass.io/inject': 'enabled' }
const secretPath = (namespace: string) =>
  `/api/v1/namespaces/${namespace}/secrets/pullpass-registry`

/** `hear` receives every message and warning of the API server. */
export function reachCluster(controlPlane: ControlPlane, hear: (text: string) => void): Cluster {
  const { url, ca } = controlPlane
  const token = controlPlane.kubeConfig().getCurrentUser()?.token
  const dispatcher = new Agent({ connect: { ca } })
  const ask = async <T>(method: string, path: string, body?: unknown): Promise<Answer<T>> => {
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
    const response = await fetch(url + path, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': type },
      body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
      dispatcher,
    })
    const warnings = warningsOf(response.headers.get('warning') ?? '')
    const answer = (await response.json()) as Answer<T>['body']
    hear([...warnings, answer.message].join('\n'))
    return { status: response.status, body: answer, warnings }
  }
  const cluster: Cluster = {
    ask,
    namespace: async (name, labels = optedIn) => {
      await done(ask('POST', '/api/v1/namespaces', { metadata: { name, labels } }))
      // The controller manager would create it too, a moment later.
      const account = { metadata: { name: 'default' } }
      await done(ask('POST', `/api/v1/namespaces/${name}/serviceaccounts`, account), 409)
    },
    label: async (name, value) => {
      const metadata = { labels: { 'pullpass.io/inject': value } }
      await done(ask<V1Namespace>('PATCH', `/api/v1/namespaces/${name}`, { metadata }))
    },
    create: (namespace, pod, query = '') =>
      ask('POST', `/api/v1/namespaces/${namespace}/pods${query}`, pod),
    secret: async namespace => {
      const { status, body } = await ask<V1Secret>('GET', secretPath(namespace))
      return status === 200 ? body : undefined
    },
    whenSecret: (namespace, holds = () => true, withinMs = 20_000) =>
      whenSecret(cluster, namespace, { holds, withinMs }),
    whenNoSecret: (namespace, withinMs = 30_000) =>
      waitFor(async () => (await cluster.secret(namespace)) === undefined, {
        withinMs,
        what: `the pull secret of ${namespace} to go`,
      }),
    close: () => dispatcher.close(),
  }
  return cluster
}

async function whenSecret(
  cluster: Cluster,
  namespace: string,
  { holds, withinMs }: { holds: (secret: V1Secret) => boolean; withinMs: number },
): Promise<V1Secret> {
  let found: V1Secret | undefined
  const look = async () => {
    found = await cluster.secret(namespace)
    return found !== undefined && holds(found)
  }
  await waitFor(look, { withinMs, what: `the pull secret of ${namespace}` })
  return found as V1Secret
}

/** Throws the answer of the API server if it is an error. */
async function done(asked: Promise<Answer<unknown>>, fine = 0): Promise<void> {
  const { status, body } = await asked
  if (status >= 300 && status !== fine) throw new Error(`HTTP ${status}: ${body.message}`)
}

/** `299 - "the text"`, several of them joined by commas (RFC 7234, 5.5). */
function warningsOf(header: string): string[] {
  return [...header.matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g)].map(([, text = '']) =>
    text.replaceAll(/\\(.)/g, '$1'),
  )
}

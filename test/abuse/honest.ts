import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'
import type { Cluster } from '../e2e/cluster.ts'
import { pod, reviewOf } from '../e2e/pods.ts'

/** The result of one review of the API server; times are those of `performance.now`. */
export interface Outcome {
  /** A pod of a namespace whose Secret is there, or the first pod of a new namespace. */
  pod: 'known' | 'first'
  sentAt: number
  endedAt: number
  /** Why it has no reference. */
  lost?: 'no answer in time' | (string & {})
}

export interface HonestLoad {
  /** In the order of their end. */
  readonly outcomes: readonly Outcome[]
  /** Reviews that could not be sent, because the API server did not create the namespace. */
  readonly unsent: readonly string[]
  /** Stops sending; resolves when each review has its answer and no new namespace remains. */
  stop(): Promise<void>
}

/** Namespaces that are opted in and hold the Secret; the caller creates them. */
export const KNOWN = ['steady-0', 'steady-1', 'steady-2', 'steady-3']
/** Prefix of the names of new namespaces. */
export const FIRST = 'honest-'

const PER_SECOND = 20
const TIMEOUT_MS = 5000
/** Lifetime of a new namespace after its first pod. */
const NAMESPACE_MS = 3000

/**
 * Sends 20 reviews a second at even distances, without waiting for the answers, over connections that
 * are kept alive and never shared by two reviews at a time, as Go's HTTP client does. Every second one
 * is about the first pod of a namespace that was made a moment before, and is deleted soon after.
 */
export function startHonestLoad(cluster: Cluster, { url, ca }: { url: string; ca: string }) {
  const dispatcher = new Agent({
    connect: { ca },
    allowH2: false,
    keepAliveTimeout: 90_000,
    keepAliveMaxTimeout: 90_000,
  })
  const outcomes: Outcome[] = []
  const unsent: string[] = []
  const underWay = new Set<Promise<void>>()
  const stopping = new AbortController()

  async function ask(namespace: string, pod: Outcome['pod']): Promise<void> {
    const sentAt = performance.now()
    const lost = await review(namespace, { url, dispatcher }).catch(explain)
    outcomes.push({ pod, sentAt, endedAt: performance.now(), ...(lost && { lost }) })
  }

  async function askFirst(namespace: string): Promise<void> {
    try {
      await create(cluster, namespace)
    } catch (error) {
      unsent.push(`${namespace}: ${(error as Error).message}`)
      return
    }
    await ask(namespace, 'first')
    await sleep(NAMESPACE_MS, undefined, { signal: stopping.signal }).catch(() => {})
    await remove(cluster, namespace)
  }

  async function run(): Promise<void> {
    const begun = performance.now()
    for (let index = 0; !stopping.signal.aborted; index++) {
      const known = KNOWN[index % KNOWN.length] as string
      const done = index % 2 === 0 ? askFirst(`${FIRST}${index}`) : ask(known, 'known')
      underWay.add(done)
      void done.finally(() => underWay.delete(done))
      const wait = begun + ((index + 1) * 1000) / PER_SECOND - performance.now()
      await sleep(Math.max(0, wait), undefined, { signal: stopping.signal }).catch(() => {})
    }
  }

  const running = run()
  const load: HonestLoad = {
    outcomes,
    unsent,
    stop: async () => {
      stopping.abort()
      await running
      await Promise.all(underWay)
      await dispatcher.close()
    },
  }
  return load
}

/**
 * Asks as the API server does: a POST is not repeated, but where the answer says `Retry-After`
 * (client-go rest/with_retry.go: 429 and 5xx, ten times), within the time in all. Resolves with what
 * is wrong.
 */
async function review(
  namespace: string,
  { url, dispatcher }: { url: string; dispatcher: Agent },
): Promise<string | undefined> {
  const sent = reviewOf(namespace, pod('web-1'), REQUEST)
  const body = JSON.stringify(sent)
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  for (let attempt = 0; ; attempt++) {
    const answer = await request(`${url}?timeout=5s`, {
      method: 'POST',
      headers: HEADERS,
      body,
      dispatcher,
      signal,
    })
    const text = await answer.body.text()
    const after = Number(answer.headers['retry-after'])
    const again = answer.statusCode === 429 || answer.statusCode >= 500
    if (!again || !Number.isInteger(after) || attempt === 10) {
      return problemOf(answer.statusCode, text, sent.request.uid)
    }
    await sleep(after * 1000, undefined, { signal })
  }
}

const HEADERS = {
  'content-type': 'application/json',
  accept: 'application/json, */*',
  'user-agent': 'kube-apiserver-admission',
}

/** What the API server adds to the pod in each review. */
const REQUEST = {
  requestKind: { group: '', version: 'v1', kind: 'Pod' },
  requestResource: { group: '', version: 'v1', resource: 'pods' },
  name: 'web-1',
  userInfo: {
    username: 'system:serviceaccount:kube-system:replicaset-controller',
    groups: ['system:serviceaccounts', 'system:authenticated'],
  },
  oldObject: null,
  options: { kind: 'CreateOptions', apiVersion: 'meta.k8s.io/v1' },
}

function problemOf(status: number, text: string, uid: string): string | undefined {
  if (status !== 200) return `HTTP ${status}: ${text.trim().slice(0, 80)}`
  const { response } = JSON.parse(text)
  if (response?.uid !== uid || response.allowed !== true) return 'another answer'
  const patch = Buffer.from(response.patch ?? '', 'base64').toString()
  return patch.includes('pullpass-registry') ? undefined : 'no reference'
}

function explain(error: Error & { code?: string }): string {
  return error.name === 'TimeoutError' ? 'no answer in time' : (error.code ?? error.message)
}

async function create(cluster: Cluster, name: string): Promise<void> {
  const labels = { 'pullpass.io/inject': 'enabled' }
  const { status, body } = await cluster.ask('POST', '/api/v1/namespaces', {
    metadata: { name, labels },
  })
  if (status !== 201) throw new Error(`HTTP ${status} ${body.message}`)
}

/** Deletes the namespace as the controller manager would, but without a list of every kind of object. */
async function remove(cluster: Cluster, name: string): Promise<void> {
  const path = `/api/v1/namespaces/${name}`
  await cluster.ask('DELETE', path)
  await cluster.ask('DELETE', `${path}/secrets/pullpass-registry`)
  await cluster.ask('PUT', `${path}/finalize`, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name },
    spec: { finalizers: [] },
  })
}

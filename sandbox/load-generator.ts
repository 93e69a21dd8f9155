import { setTimeout as sleep } from 'node:timers/promises'
import { CoreV1Api, type V1Pod } from '@kubernetes/client-node'
import { Agent, fetch } from 'undici'
import type { ControlPlane } from './control-plane.ts'

/** Creates pods at a constant rate, whether or not earlier ones succeeded. */
export interface LoadGenerator {
  /** The results so far, from the audit log of the API server. */
  count(): Promise<LoadResult>
  /** Creates no more pods; resolves when every request has its response. */
  stop(): Promise<void>
}

export interface LoadResult {
  created: number
  /** One entry for each pod that was refused or that got no response. */
  refused: string[]
  /** The names of created pods without the pull secret. */
  withoutReference: string[]
  /** Duration of the slowest creation. */
  slowestMs: number
}

/**
 * Creates `perSecond` pods a second in the namespace, at even intervals and without waiting for the
 * responses. No node runs them.
 */
export function startLoadGenerator(options: {
  controlPlane: ControlPlane
  namespace: string
  image: string
  perSecond: number
}): LoadGenerator {
  const { controlPlane, namespace, image, perSecond } = options
  const dispatcher = new Agent({ connect: { ca: controlPlane.ca } })
  const stopping = new AbortController()
  const answers: Promise<void>[] = []
  const unanswered: string[] = []
  const url = `${controlPlane.url}/api/v1/namespaces/${namespace}/pods`
  const authorization = `Bearer ${controlPlane.kubeConfig().getCurrentUser()?.token}`
  const headers = { authorization, 'content-type': 'application/json', 'user-agent': USER_AGENT }

  async function create(name: string): Promise<void> {
    const spec = { containers: [{ name: 'main', image }], schedulerName: 'none' }
    const body = JSON.stringify({ metadata: { name }, spec })
    const response = await fetch(url, { method: 'POST', headers, body, dispatcher })
    await response.arrayBuffer()
  }

  async function run(): Promise<void> {
    const begun = performance.now()
    for (let index = 0; !stopping.signal.aborted; index++) {
      const name = `load-${index}`
      answers.push(create(name).catch(error => void unanswered.push(`${name}: ${error}`)))
      const next = begun + ((index + 1) * 1000) / perSecond
      const wait = Math.max(0, next - performance.now())
      await sleep(wait, undefined, { signal: stopping.signal }).catch(() => {})
    }
  }

  async function end(): Promise<void> {
    stopping.abort()
    await running
    await Promise.all(answers)
    await dispatcher.close()
  }

  const running = run()
  let ended: Promise<void> | undefined
  return {
    async count() {
      const written = await readAudit(controlPlane, namespace)
      const withoutReference = (await listPods(controlPlane, namespace)).filter(isWithoutReference)
      return {
        created: written.filter(({ code }) => code === 201).length,
        refused: [...unanswered, ...written.filter(({ code }) => code !== 201).map(said)],
        withoutReference: withoutReference.map(({ metadata }) => metadata?.name ?? ''),
        slowestMs: Math.max(0, ...written.map(({ ms }) => ms)),
      }
    },
    stop() {
      ended ??= end()
      return ended
    },
  }
}

const USER_AGENT = 'pullpass-load-generator'

interface Written {
  name: string
  code: number
  reason: string
  ms: number
}

async function readAudit(controlPlane: ControlPlane, namespace: string): Promise<Written[]> {
  const events = await controlPlane.audit()
  return events
    .filter(({ userAgent, objectRef }) => {
      return userAgent === USER_AGENT && objectRef?.namespace === namespace
    })
    .map(({ objectRef, responseStatus, ...event }) => ({
      name: objectRef?.name ?? '',
      code: responseStatus?.code ?? 0,
      reason: responseStatus?.message ?? responseStatus?.reason ?? '',
      ms: Date.parse(event.stageTimestamp) - Date.parse(event.requestReceivedTimestamp),
    }))
}

function said({ name, code, reason }: Written): string {
  return `${name}: HTTP ${code} ${reason}`
}

async function listPods(controlPlane: ControlPlane, namespace: string): Promise<V1Pod[]> {
  const core = controlPlane.kubeConfig().makeApiClient(CoreV1Api)
  return (await core.listNamespacedPod({ namespace })).items
}

function isWithoutReference({ metadata, spec }: V1Pod): boolean {
  return (
    metadata?.name?.startsWith('load-') === true &&
    !spec?.imagePullSecrets?.some(({ name }) => name === 'pullpass-registry')
  )
}

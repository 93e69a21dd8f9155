import { rm } from 'node:fs/promises'
import type { V1Container, V1ContainerStatus, V1Pod, V1PodStatus } from '@kubernetes/client-node'
import { bringUp } from './bring-up.ts'
import type { PodContainer } from './pod-container.ts'
import type { PodContext } from './pod-context.ts'
import { statusOf } from './pod-status.ts'
import { createStatusWriter } from './status-writer.ts'
import { refusals } from './understood.ts'

export interface RunningPod {
  /** Its object has changed; where it is being deleted, its end begins. */
  update(pod: V1Pod): void
  /** Ends all its programs at once and says nothing to the API server. */
  kill(): Promise<void>
  /** One that has been started, also after its end. */
  container(name: string): PodContainer | undefined
}

/** Carries out a pod that is bound to this node, from its volumes to the last word about it. */
export function runPod(first: V1Pod, context: PodContext): RunningPod {
  let pod = first
  let refusal: { reason: string; message: string } | undefined
  let ending = false
  const podIP = context.takeAddress()
  const startTime = new Date()
  const stopping = new AbortController()
  const containers = new Map<string, PodContainer>()
  const say = context.say(pod)
  const facts = () => ({ ...context, pod, podIP })
  const writer = createStatusWriter(context.core, pod, status)

  function status(): V1PodStatus {
    const { initContainers = [], containers: main = [] } = pod.spec ?? {}
    const of = (spec: V1Container) =>
      containers.get(spec.name)?.status() ?? waiting(spec, refusal ?? { reason: 'PodInitializing' })
    const { hostIP } = context
    const state = {
      ...{ podIP, hostIP, startTime, refusal },
      initContainers: initContainers.map(of),
      containers: main.map(of),
    }
    const now = statusOf(pod, state, new Date())
    // The next status keeps the times of this one's conditions, whatever the watch has shown by then.
    pod = { ...pod, status: { ...pod.status, ...now } }
    return now
  }

  const problems = refusals(pod)
  if (problems.length > 0) {
    refusal = { reason: 'NotUnderstood', message: problems.join('; ') }
    say('Warning', refusal.reason, refusal.message)
  }
  writer.changed()
  const living = refusal
    ? undefined
    : bringUp({
        pod,
        context,
        facts,
        containers,
        stopping: stopping.signal,
        onChange: writer.changed,
      })

  async function stop(graceMs: number): Promise<void> {
    stopping.abort()
    if (containers.size > 0 && graceMs > 0) say('Normal', 'Killing', 'Stopping all containers')
    await Promise.all([...containers.values()].map(container => container.stop(graceMs)))
    const volumes = await living
    await volumes?.stop()
    await rm(context.folder, { recursive: true, force: true })
  }

  async function end(): Promise<void> {
    await stop((pod.metadata?.deletionGracePeriodSeconds ?? 30) * 1000)
    await writer.flush()
    const { name = '', namespace = '', uid = '' } = pod.metadata ?? {}
    const body = { gracePeriodSeconds: 0, preconditions: { uid } }
    // Not there any more is what was wanted; without an answer it is the pod garbage collector's.
    await context.core.deleteNamespacedPod({ name, namespace, body }).catch(() => {})
  }

  return {
    update(next) {
      pod = { ...next, status: { ...next.status, ...pod.status } }
      if (!next.metadata?.deletionTimestamp || ending) return
      ending = true
      void end()
    },
    async kill() {
      await stop(0)
    },
    container: name => containers.get(name),
  }
}

function waiting(
  { name, image = '' }: V1Container,
  why: { reason: string; message?: string },
): V1ContainerStatus {
  const state = { waiting: why }
  return { name, image, imageID: '', ready: false, started: false, restartCount: 0, state }
}

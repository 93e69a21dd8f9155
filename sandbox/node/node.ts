import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { CoreV1Api, type KubeConfig, type V1Pod } from '@kubernetes/client-node'
import { makeFolder } from '../processes.ts'
import { claimAddresses } from './addresses.ts'
import { createEvents } from './events.ts'
import { follow } from './follow.ts'
import { readLogs, startKubeletServer } from './kubelet-server.ts'
import { registerNode } from './node-object.ts'
import { followObjects } from './objects.ts'
import type { Rhythm } from './pod/pod-context.ts'
import { type RunningPod, runPod } from './pod/run-pod.ts'
import { findPrivilege } from './privilege.ts'
import type { Programs } from './programs.ts'

export interface SandboxNode {
  readonly name: string
  /** The process of a running container; undefined where it does not run now. */
  pid(pod: string, container: string): number | undefined
  /**
   * All that a pod's containers have written, also after its end; '' where it has never run here.
   */
  logs(pod: string, container?: string): Promise<string>
  /** Kills every program and takes the Node object away. */
  stop(): Promise<void>
}

const KUBELET_RHYTHM: Rhythm = {
  volumes: 200,
  backOff: { first: 10_000, most: 300_000 },
  renewTokensAt: 0.8,
}

/**
 * A node of the cluster that runs the pods of one namespace as processes of this machine; it
 * binds them to itself, there being no scheduler. `programs` says what each image is. What it does
 * not understand of a pod it refuses in the pod's status and in an event. Resources are not
 * enforced.
 */
export async function startNode(options: {
  kubeConfig: KubeConfig
  namespace: string
  programs: Programs
  name?: string
  rhythm?: Partial<Rhythm>
  /** Where pods find the API server, e.g. a proxy in front of it; that of `kubeConfig` where absent. */
  podApiServer?: string
}): Promise<SandboxNode> {
  const { kubeConfig, namespace, programs, name = `sandbox-${namespace}` } = options
  const privilege = await findPrivilege()
  const core = kubeConfig.makeApiClient(CoreV1Api)
  const folder = await makeFolder('node')
  const addresses = await claimAddresses()
  const events = createEvents(core, name)
  const objects = await followObjects(kubeConfig, namespace)
  const registration = await registerNode({ kubeConfig, name, address: addresses.node })
  const rhythm = { ...KUBELET_RHYTHM, ...options.rhythm }
  const { hostname: host, port } = new URL(
    options.podApiServer ?? kubeConfig.getCurrentCluster()?.server ?? '',
  )
  const context = {
    ...{ core, objects, programs, privilege, rhythm, nodeName: name, hostIP: addresses.node },
    apiServer: { host, port },
    takeAddress: addresses.take,
    say: events.say,
  }
  const running = new Map<string, RunningPod & { name: string }>()
  const bound = new Set<string>()
  const logFolder = (pod: string) => join(folder.path, 'logs', pod)
  const logs = (pod: string, container = '') => readLogs(join(logFolder(pod), container))

  async function bind({ metadata = {} }: V1Pod): Promise<void> {
    const { name: pod = '', uid = '' } = metadata
    if (bound.has(uid)) return
    bound.add(uid)
    const target = { apiVersion: 'v1', kind: 'Node', name }
    const body = { metadata: { name: pod, namespace, uid }, target }
    // Deleted meanwhile, or bound: the watch reports it. Anything else is tried again with its next change.
    await core.createNamespacedPodBinding({ name: pod, namespace, body }).catch(() => {
      bound.delete(uid)
    })
  }

  function start(pod: V1Pod, uid: string): void {
    const { name: podName = '' } = pod.metadata ?? {}
    const own = join(folder.path, 'pods', uid)
    const started = runPod(pod, { ...context, folder: own, logFolder: logFolder(podName) })
    running.set(uid, { ...started, name: podName })
    started.update(pod)
  }

  function onChange(pod: V1Pod, gone: boolean): void {
    const uid = pod.metadata?.uid ?? ''
    const known = running.get(uid)
    if (known && !gone) known.update(pod)
    else if (known) {
      running.delete(uid)
      void known.kill()
    } else if (!gone && !isOver(pod)) take(pod, uid)
  }

  function take(pod: V1Pod, uid: string): void {
    if (!pod.spec?.nodeName) void bind(pod)
    else if (pod.spec.nodeName === name) start(pod, uid)
  }

  const find = (pod: string, container: string) =>
    [...running.values()].find(known => known.name === pod)?.container(container)
  const kubelet = await startKubeletServer({
    ...{ addresses, namespace, logs },
    exec: (pod, container, command) => find(pod, container)?.exec(command),
  })
  await mkdir(join(folder.path, 'pods'))
  const path = `/api/v1/namespaces/${namespace}/pods`
  const pods = await follow<V1Pod>({
    kubeConfig,
    path,
    list: () => core.listNamespacedPod({ namespace }),
  })
  pods.onChange(onChange)
  for (const pod of pods.all()) onChange(pod, false)

  return {
    name,
    pid: (pod, container) => find(pod, container)?.pid(),
    logs,
    async stop() {
      await pods.stop()
      await Promise.all([...running.values()].map(pod => pod.kill()))
      await Promise.all([objects.stop(), events.settled()])
      await registration.remove()
      kubelet.stop()
      await addresses.release()
      await folder.remove()
    },
  }
}

function isOver({ status }: V1Pod): boolean {
  return status?.phase === 'Succeeded' || status?.phase === 'Failed'
}

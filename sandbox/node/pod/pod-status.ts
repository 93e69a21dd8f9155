import type { V1ContainerStatus, V1Pod, V1PodCondition, V1PodStatus } from '@kubernetes/client-node'

export interface PodState {
  podIP: string
  hostIP: string
  startTime: Date
  initContainers: V1ContainerStatus[]
  containers: V1ContainerStatus[]
  /** Why the pod cannot run on this node. */
  refusal?: { reason: string; message: string } | undefined
}

/** The status to write for a pod; conditions keep the time of their last change from `before`. */
export function statusOf(pod: V1Pod, state: PodState, now: Date): V1PodStatus {
  const initialized = state.initContainers.every(isDone)
  const phase = phaseOf(pod, state)
  const over = phase === 'Succeeded' || phase === 'Failed'
  const ready = state.containers.length > 0 && state.containers.every(({ ready }) => ready)
  const idle = over ? (phase === 'Succeeded' ? 'PodCompleted' : 'PodFailed') : 'ContainersNotReady'
  const unready = state.containers.filter(status => !status.ready).map(({ name }) => name)
  const why = { reason: idle, message: `containers with unready status: [${unready.join(' ')}]` }
  const conditions: V1PodCondition[] = [
    { type: 'PodScheduled', status: 'True' },
    { type: 'Initialized', ...yesNo(initialized, { reason: 'ContainersNotInitialized' }) },
    { type: 'ContainersReady', ...yesNo(ready, why) },
    { type: 'Ready', ...yesNo(ready, why) },
  ]
  return {
    phase,
    conditions: conditions.map(condition => dated(condition, pod.status?.conditions, now)),
    hostIP: state.hostIP,
    hostIPs: [{ ip: state.hostIP }],
    podIP: state.podIP,
    podIPs: [{ ip: state.podIP }],
    startTime: state.startTime,
    qosClass: pod.status?.qosClass ?? 'BestEffort',
    initContainerStatuses: state.initContainers,
    containerStatuses: state.containers,
    ...state.refusal,
  }
}

/**
 * | containers                                             | phase     |
 * |--------------------------------------------------------|-----------|
 * | an init container failed for good                      | Failed    |
 * | one has not been started yet                           | Pending   |
 * | all ended for good, all with 0                         | Succeeded |
 * | all ended for good, one not with 0                     | Failed    |
 * | else                                                   | Running   |
 */
function phaseOf(pod: V1Pod, { containers, initContainers }: PodState): string {
  const final = pod.spec?.restartPolicy === 'Never'
  if (final && initContainers.some(hasFailed)) return 'Failed'
  if (containers.length === 0 || containers.some(isNew)) return 'Pending'
  const leaving = pod.metadata?.deletionTimestamp !== undefined
  const forGood = (status: V1ContainerStatus) =>
    isDone(status) || ((final || leaving) && hasFailed(status))
  const stays = pod.spec?.restartPolicy === 'Always' && !leaving
  if (stays || !containers.every(forGood)) return 'Running'
  return containers.every(isDone) ? 'Succeeded' : 'Failed'
}

function isNew({ state, lastState }: V1ContainerStatus): boolean {
  return state?.waiting !== undefined && lastState?.terminated === undefined
}

function isDone({ state }: V1ContainerStatus): boolean {
  return state?.terminated?.exitCode === 0
}

function hasFailed({ state }: V1ContainerStatus): boolean {
  return state?.terminated !== undefined && state.terminated.exitCode !== 0
}

function yesNo(yes: boolean, why: { reason: string; message?: string }) {
  return yes ? { status: 'True' } : { status: 'False', ...why }
}

function dated(
  condition: V1PodCondition,
  before: V1PodCondition[] | undefined,
  now: Date,
): V1PodCondition {
  const last = before?.find(({ type }) => type === condition.type)
  const same = last?.status === condition.status
  return { ...condition, lastTransitionTime: (same && last?.lastTransitionTime) || now }
}

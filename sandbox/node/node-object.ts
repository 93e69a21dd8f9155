import { setTimeout as sleep } from 'node:timers/promises'
import {
  CoordinationV1Api,
  CoreV1Api,
  type KubeConfig,
  PatchStrategy,
  setHeaderOptions,
  V1MicroTime,
} from '@kubernetes/client-node'
import { KUBELET_PORT } from './addresses.ts'

const LEASES = 'kube-node-lease'
const RENEW_MS = 10_000
const LEASE_SECONDS = 40

/**
 * Makes the Node object, says that it is Ready and renews its Lease, as the kubelet does: the
 * node lifecycle controller would else mark its pods unready and evict them. `remove` takes both
 * away again.
 */
export async function registerNode(options: {
  kubeConfig: KubeConfig
  name: string
  address: string
}): Promise<{ remove(): Promise<void> }> {
  const { kubeConfig, name, address } = options
  const core = kubeConfig.makeApiClient(CoreV1Api)
  const coordination = kubeConfig.makeApiClient(CoordinationV1Api)
  const stopping = new AbortController()
  const labels = {
    'kubernetes.io/hostname': name,
    'kubernetes.io/os': 'linux',
    'kubernetes.io/arch': process.arch === 'x64' ? 'amd64' : process.arch,
  }
  await core.createNode({ body: { metadata: { name, labels } } })
  await core.patchNodeStatus({ name, body: { status: status(address) } }, STRATEGIC)
  await coordination.createNamespacedLease({ namespace: LEASES, body: lease(name) })

  async function renew(): Promise<void> {
    while (!stopping.signal.aborted) {
      await sleep(RENEW_MS, undefined, { signal: stopping.signal }).catch(() => {})
      const { metadata, spec } = lease(name)
      const body = { metadata, spec }
      // Four renewals may fail before anybody takes the node for lost.
      await coordination
        .patchNamespacedLease({ name, namespace: LEASES, body }, MERGE)
        .catch(() => {})
    }
  }
  const renewing = renew()

  return {
    async remove() {
      stopping.abort()
      await renewing
      await core.deleteNode({ name }).catch(() => {})
      await coordination.deleteNamespacedLease({ name, namespace: LEASES }).catch(() => {})
    },
  }
}

const STRATEGIC = setHeaderOptions('Content-Type', PatchStrategy.StrategicMergePatch)
const MERGE = setHeaderOptions('Content-Type', PatchStrategy.MergePatch)

function status(address: string) {
  const now = new Date()
  return {
    conditions: [
      {
        type: 'Ready',
        status: 'True',
        reason: 'SandboxNodeReady',
        message: 'the node of the sandbox runs pods as processes',
        lastHeartbeatTime: now,
        lastTransitionTime: now,
      },
    ],
    // No host name: the API server would rather ask that for logs, and it is that of the machine.
    addresses: [{ type: 'InternalIP', address }],
    declaredFeatures: ['ExtendWebSocketsToKubelet'],
    daemonEndpoints: { kubeletEndpoint: { Port: KUBELET_PORT } },
    capacity: { cpu: '64', memory: '256Gi', pods: '253' },
    allocatable: { cpu: '64', memory: '256Gi', pods: '253' },
  }
}

function lease(name: string) {
  return {
    metadata: { name },
    spec: {
      holderIdentity: name,
      leaseDurationSeconds: LEASE_SECONDS,
      renewTime: new V1MicroTime(),
    },
  }
}

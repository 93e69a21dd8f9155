import { CoreV1Api, type V1Pod } from '@kubernetes/client-node'
import type { ControlPlane } from '../control-plane.ts'
import { releaseNamespace } from '../install.ts'
import { waitFor } from '../processes.ts'

/** The pods of the Deployment, without those that are being deleted. */
export async function podsOf(controlPlane: ControlPlane): Promise<V1Pod[]> {
  const { items } = await controlPlane.kubeConfig().makeApiClient(CoreV1Api).listNamespacedPod({
    namespace: releaseNamespace,
    labelSelector: 'app.kubernetes.io/name=pullpass',
  })
  return items.filter(({ metadata }) => metadata?.deletionTimestamp === undefined)
}

/** Waits until one of the pods reports to be the leader; resolves with it. */
export async function whenLed(pods: () => Promise<V1Pod[]>): Promise<V1Pod> {
  let leader: V1Pod | undefined
  const look = async () => {
    const all = await pods()
    const leading = await Promise.all(all.map(leads))
    leader = all.find((_, index) => leading[index])
    return leader !== undefined
  }
  await waitFor(look, { withinMs: 40_000, what: 'a replica to lead' })
  return leader as V1Pod
}

async function leads({ status }: V1Pod): Promise<boolean> {
  const answer = await fetch(`http://${status?.podIP}:8081/metrics`).catch(() => undefined)
  return (await answer?.text())?.includes('\npullpass_leader 1\n') === true
}

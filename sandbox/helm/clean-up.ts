import { AppsV1Api, CoreV1Api, type V1PodSpec } from '@kubernetes/client-node'
import type { ControlPlane } from '../control-plane.ts'
import { releaseNamespace } from '../install.ts'
import { waitFor } from '../processes.ts'

const name = 'pullpass-clean-up'

/**
 * Runs `pullpass clean-up` with what the Deployment's pods have: image, ServiceAccount, settings and
 * credentials. Resolves when it has ended well; `logs` tells what a pod has written.
 *
 * In a cluster that has a kubelet, `kubectl exec deployment/pullpass -- /usr/local/bin/node
 * /app/pullpass.mjs clean-up --config /etc/pullpass/config/config.yaml` does the same.
 */
export async function runCleanUp(
  controlPlane: ControlPlane,
  logs: (pod: string) => Promise<string>,
): Promise<string> {
  const kubeConfig = controlPlane.kubeConfig()
  const core = kubeConfig.makeApiClient(CoreV1Api)
  const of = { name: 'pullpass', namespace: releaseNamespace }
  const { spec } = await kubeConfig.makeApiClient(AppsV1Api).readNamespacedDeployment(of)
  const body = { metadata: { name }, spec: forOneDeed(spec?.template.spec) }
  const pod = { name, namespace: releaseNamespace }
  await core.createNamespacedPod({ namespace: releaseNamespace, body })
  const hasEnded = async () => {
    const { status } = await core.readNamespacedPod(pod)
    if (status?.phase === 'Failed') throw new Error(`clean-up failed: ${await logs(name)}`)
    return status?.phase === 'Succeeded'
  }
  await waitFor(hasEnded, { withinMs: 60_000, what: 'clean-up to end' })
  await core.deleteNamespacedPod(pod)
  return (await logs(name)).trim()
}

function forOneDeed(spec: V1PodSpec | undefined): V1PodSpec {
  const [container] = spec?.containers ?? []
  if (!spec || !container) throw new Error('the Deployment has no container')
  const { name, image, env, volumeMounts, securityContext } = container
  const args = ['clean-up', '--config', '/etc/pullpass/config/config.yaml']
  const own = { name, ...(image && { image }), args }
  return {
    ...spec,
    restartPolicy: 'Never',
    containers: [
      {
        ...own,
        ...(env && { env }),
        ...(volumeMounts && { volumeMounts }),
        ...(securityContext && { securityContext }),
      },
    ],
  }
}

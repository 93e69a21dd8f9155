import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Pod } from '@kubernetes/client-node'
import { asKubernetesError, type KubernetesClient } from '../kubernetes/client.ts'
import { injectLabel } from '../names.ts'

/** Required by the "restricted" Pod Security Standard. */
const securityContext = {
  runAsNonRoot: true,
  runAsUser: 65532,
  seccompProfile: { type: 'RuntimeDefault' },
}
const unprivileged = {
  securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
}
const tries = 20

/**
 * Creates a pod with `dryRun`: it passes API server, certificate and webhook, and is not stored.
 * Resolves to a sentence about the result.
 *
 * @throws KubernetesError where the API server refuses the pod; Error where the reference is missing.
 */
export async function selftest(
  { client }: { client: KubernetesClient },
  { namespace, image, secret }: { namespace: string; image: string; secret: string },
): Promise<string> {
  const body = {
    metadata: { generateName: 'pullpass-selftest-' },
    spec: { securityContext, containers: [{ name: 'selftest', image, ...unprivileged }] },
  }
  const pod = await createPod(() =>
    client.core.createNamespacedPod({ namespace, body, dryRun: 'All' }),
  ).catch(error => {
    throw asKubernetesError(`create a dry-run pod in ${namespace}`, error)
  })
  const named = (pod.spec?.imagePullSecrets ?? []).map(({ name }) => name)
  if (named.includes(secret)) return `a pod in ${namespace} with image ${image} names ${secret}`
  throw new Error(
    `a pod in ${namespace} with image ${image} does not name ${secret}: ` +
      `check that the namespace has the label ${injectLabel}=enabled, and that the image is in the registry`,
  )
}

/** A new namespace refuses pods until its ServiceAccount `default` exists. */
async function createPod(create: () => Promise<V1Pod>): Promise<V1Pod> {
  for (let left = tries; ; left--) {
    try {
      return await create()
    } catch (error) {
      const { status } = asKubernetesError('create a pod', error)
      if (status !== 403 || left === 0) throw error
    }
    await sleep(1000)
  }
}

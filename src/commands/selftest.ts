import type { KubernetesClient } from '../kubernetes/client.ts'
import { asKubernetesError } from '../kubernetes/client.ts'

/**
 * Creates a pod with `dryRun`, which goes the whole way (API server, certificate, webhook) and
 * leaves nothing. Resolves to a sentence about what came back.
 *
 * @throws KubernetesError where the API server refuses the pod; Error where the reference is missing.
 */
export async function selftest(
  client: Pick<KubernetesClient, 'core'>,
  { namespace, image, secret }: { namespace: string; image: string; secret: string },
): Promise<string> {
  const body = {
    metadata: { generateName: 'pullpass-selftest-' },
    spec: { containers: [{ name: 'selftest', image }] },
  }
  const pod = await client.core
    .createNamespacedPod({ namespace, body, dryRun: 'All' })
    .catch(error => {
      throw asKubernetesError(`create a dry-run pod in ${namespace}`, error)
    })
  const named = (pod.spec?.imagePullSecrets ?? []).map(({ name }) => name)
  if (named.includes(secret)) return `a pod of ${namespace} with image ${image} names ${secret}`
  throw new Error(
    `a pod of ${namespace} with image ${image} does not name ${secret}: ` +
      `is the namespace labelled pullpass.io/inject=enabled, and is the image of the registry?`,
  )
}

import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Pod } from '@kubernetes/client-node'
import { asKubernetesError, type KubernetesClient } from '../kubernetes/client.ts'

/** What the "restricted" pod security standard asks of every pod. */
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
    spec: { securityContext, containers: [{ name: 'selftest', image, ...unprivileged }] },
  }
  const pod = await createPod(() =>
    client.core.createNamespacedPod({ namespace, body, dryRun: 'All' }),
  ).catch(error => {
    throw asKubernetesError(`create a dry-run pod in ${namespace}`, error)
  })
  const named = (pod.spec?.imagePullSecrets ?? []).map(({ name }) => name)
  if (named.includes(secret)) return `a pod of ${namespace} with image ${image} names ${secret}`
  throw new Error(
    `a pod of ${namespace} with image ${image} does not name ${secret}: ` +
      `is the namespace labelled pullpass.io/inject=enabled, and is the image of the registry?`,
  )
}

/** A new namespace refuses pods for a moment, until its ServiceAccount `default` has been made. */
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

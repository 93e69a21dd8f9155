import { PatchStrategy, setHeaderOptions } from '@kubernetes/client-node'
import { asKubernetesError, type KubernetesClient } from './client.ts'

export interface LeaseNote {
  read(): Promise<string | undefined>
  /** Where the Lease does not exist, nobody leads and there is nothing to share: not written. */
  write(text: string): Promise<void>
}

/**
 * A line of text in an annotation of a Lease: there as long as the Lease, and readable to whoever
 * leads next. Both calls reject with a KubernetesError.
 */
export function createLeaseNote(options: {
  client: Pick<KubernetesClient, 'coordination'>
  namespace: string
  name: string
  annotation: string
}): LeaseNote {
  const { client, namespace, name, annotation } = options
  const id = `Lease ${namespace}/${name}`
  return {
    read: () =>
      unlessAbsent(`read ${id}`, async () => {
        const lease = await client.coordination.readNamespacedLease({ namespace, name })
        return lease.metadata?.annotations?.[annotation]
      }),
    write: text =>
      unlessAbsent(`annotate ${id}`, async () => {
        const body = { metadata: { annotations: { [annotation]: text } } }
        await client.coordination.patchNamespacedLease(
          { namespace, name, body },
          setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
        )
      }),
  }
}

async function unlessAbsent<T>(action: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    const failure = asKubernetesError(action, error)
    if (failure.status === 404) return undefined
    throw failure
  }
}

import type { V1Lease, V1LeaseSpec } from '@kubernetes/client-node'
import { asKubernetesError, type KubernetesClient } from '../client.ts'
import { inTime } from '../in-time.ts'

export interface LeaseStore {
  /** Undefined: there is none. */
  read(): Promise<V1Lease | undefined>
  /**
   * Creates the Lease, or replaces exactly the state `before`. Undefined: somebody else was faster.
   */
  write(before: V1Lease | undefined, spec: V1LeaseSpec): Promise<V1Lease | undefined>
}

/**
 * One Lease. Every call rejects with a KubernetesError. A call that took longer than `limitMs` may
 * still be carried out later; it does no harm, since it replaces nothing but the state it was made
 * from.
 */
export function createLeaseStore(options: {
  client: Pick<KubernetesClient, 'coordination'>
  namespace: string
  name: string
  limitMs: number
}): LeaseStore {
  const { namespace, name, limitMs } = options
  const api = options.client.coordination
  const id = `Lease ${namespace}/${name}`

  /** Statuses in `expected` are answers; a 404 on create is none: the namespace is missing. */
  async function asked<T>(
    verb: string,
    call: Promise<T>,
    expected: number[],
  ): Promise<T | undefined> {
    try {
      return await inTime(call, limitMs)
    } catch (error) {
      const translated = asKubernetesError(`${verb} ${id}`, error)
      if (expected.includes(translated.status ?? 0)) return undefined
      throw translated
    }
  }

  return {
    read: () => asked('read', api.readNamespacedLease({ namespace, name }), [404]),
    write(before, spec) {
      if (!before) {
        const body = { metadata: { namespace, name }, spec }
        return asked('create', api.createNamespacedLease({ namespace, body }), [409])
      }
      const body = { ...before, spec }
      return asked('renew', api.replaceNamespacedLease({ namespace, name, body }), [404, 409])
    },
  }
}

import {
  PatchStrategy,
  setHeaderOptions,
  type V1Lease,
  type V1LeaseSpec,
  V1MicroTime,
} from '@kubernetes/client-node'
import { asKubernetesError, type KubernetesClient } from './client.ts'
import { inTime } from './errors.ts'

/**
 * A state of the Lease, and when this process first saw it (milliseconds of its own monotonic
 * clock).
 */
export interface Observation {
  spec: V1LeaseSpec
  since: number
}

/** What was just read, with the time it has stayed unchanged. */
export function observe(
  before: Observation | undefined,
  spec: V1LeaseSpec,
  now: number,
): Observation {
  const unchanged = before && JSON.stringify(before.spec) === JSON.stringify(spec)
  return unchanged ? before : { spec, since: now }
}

/**
 * | holder       | may be taken                                                          |
 * |--------------|-----------------------------------------------------------------------|
 * | none         | yes: it was released                                                  |
 * | this process | yes: renewed                                                          |
 * | another      | when nothing has changed before our eyes for the duration it has set  |
 *
 * The times in the Lease are never compared with a clock here: clocks of two machines differ
 * (kubernetes/client-go tools/leaderelection/leaderelection.go).
 */
export function mayTake({ spec, since }: Observation, identity: string, now: number): boolean {
  if (!spec.holderIdentity || spec.holderIdentity === identity) return true
  return now - since >= (spec.leaseDurationSeconds ?? 0) * 1000
}

/** The Lease as `identity` writes it to take or renew it; `before` absent: there is none yet. */
export function takenBy(
  identity: string,
  before: V1LeaseSpec | undefined,
  { leaseSeconds, wallClock }: { leaseSeconds: number; wallClock: Date },
): V1LeaseSpec {
  const renewTime = new V1MicroTime(wallClock)
  const renewed = before?.holderIdentity === identity
  const transitions = before?.leaseTransitions ?? 0
  return {
    ...before,
    holderIdentity: identity,
    leaseDurationSeconds: Math.ceil(leaseSeconds),
    acquireTime: (renewed && before.acquireTime) || renewTime,
    renewTime,
    leaseTransitions: before && !renewed ? transitions + 1 : transitions,
  }
}

/** The Lease as its holder leaves it, free to be taken at once. */
export function released(before: V1LeaseSpec, wallClock: Date): V1LeaseSpec {
  const renewTime = new V1MicroTime(wallClock)
  return { ...before, holderIdentity: '', leaseDurationSeconds: 1, renewTime }
}

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

interface LeaseAnnotation {
  read(): Promise<string | undefined>
  /** Where the Lease does not exist, nobody leads and there is nothing to share: not written. */
  write(text: string): Promise<void>
}

/**
 * A line of text in an annotation of a Lease: there as long as the Lease, and readable to whoever
 * leads next. Both calls reject with a KubernetesError.
 */
export function createLeaseAnnotation(options: {
  client: Pick<KubernetesClient, 'coordination'>
  namespace: string
  name: string
  annotation: string
}): LeaseAnnotation {
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

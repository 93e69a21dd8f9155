import {
  PatchStrategy,
  setHeaderOptions,
  type V1Lease,
  type V1LeaseSpec,
  V1MicroTime,
} from '@kubernetes/client-node'
import { inTime } from '../time-limit.ts'
import { type KubernetesClient, unlessStatus } from './client.ts'

/** A state of the Lease, and when this process first saw it (milliseconds of a monotonic clock). */
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
 * | another      | when this process has seen no change for the duration in the Lease    |
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
   * Creates the Lease, or replaces exactly the state `before`. Undefined: another process was
   * faster.
   */
  write(before: V1Lease | undefined, spec: V1LeaseSpec): Promise<V1Lease | undefined>
}

/**
 * One Lease. Every call rejects with a KubernetesError. The API server may still carry out a call that
 * took longer than `limitMs`. That does no harm: the call replaces only the state it was made from.
 */
export function createLeaseStore(
  { client }: { client: KubernetesClient },
  { namespace, name, limitMs }: { namespace: string; name: string; limitMs: number },
): LeaseStore {
  const api = client.coordination
  const id = `Lease ${namespace}/${name}`
  const limited = <T>(call: Promise<T>) => inTime(call, { ms: limitMs })
  return {
    read: () => {
      const reading = api.readNamespacedLease({ namespace, name })
      return unlessStatus([404], `read ${id}`, limited(reading))
    },
    write(before, spec) {
      if (!before) {
        const body = { metadata: { namespace, name }, spec }
        const creating = api.createNamespacedLease({ namespace, body })
        // Not 404: that is a missing namespace.
        return unlessStatus([409], `create ${id}`, limited(creating))
      }
      const replacing = api.replaceNamespacedLease({ namespace, name, body: { ...before, spec } })
      return unlessStatus([404, 409], `renew ${id}`, limited(replacing))
    },
  }
}

interface LeaseAnnotation {
  read(): Promise<string | undefined>
  /** Writes nothing where there is no Lease: nobody leads then, and there is nothing to share. */
  write(text: string): Promise<void>
}

/**
 * A line of text in an annotation of a Lease. It lasts as long as the Lease, and the next leader can
 * read it. Both calls reject with a KubernetesError.
 */
export function createLeaseAnnotation(
  { client }: { client: KubernetesClient },
  { namespace, name, annotation }: { namespace: string; name: string; annotation: string },
): LeaseAnnotation {
  const api = client.coordination
  const id = `Lease ${namespace}/${name}`
  return {
    read: async () => {
      const reading = api.readNamespacedLease({ namespace, name })
      const lease = await unlessStatus([404], `read ${id}`, reading)
      return lease?.metadata?.annotations?.[annotation]
    },
    write: async text => {
      const body = { metadata: { annotations: { [annotation]: text } } }
      const writing = api.patchNamespacedLease(
        { namespace, name, body },
        setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
      )
      await unlessStatus([404], `annotate ${id}`, writing)
    },
  }
}

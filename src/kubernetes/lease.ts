import {
  PatchStrategy,
  setHeaderOptions,
  type V1Lease,
  type V1LeaseSpec,
  V1MicroTime,
} from '@kubernetes/client-node'
import { inTime } from '../time-limit.ts'
import {
  asKubernetesError,
  type KubernetesClient,
  KubernetesError,
  unlessStatus,
} from './client.ts'

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
  write(before: V1Lease | undefined, next: LeaseContent): Promise<V1Lease | undefined>
}

interface LeaseContent {
  spec: V1LeaseSpec
  /** Changes only these; undefined removes one. */
  annotations: Record<string, string | undefined>
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
    write(before, { spec, annotations: changes }) {
      const annotations = changed(before?.metadata?.annotations, changes)
      if (!before) {
        const body = { metadata: { namespace, name, annotations }, spec }
        const creating = api.createNamespacedLease({ namespace, body })
        // Not 404: that is a missing namespace.
        return unlessStatus([409], `create ${id}`, limited(creating))
      }
      const body = { ...before, metadata: { ...before.metadata, annotations }, spec }
      const replacing = api.replaceNamespacedLease({ namespace, name, body })
      return unlessStatus([404, 409], `renew ${id}`, limited(replacing))
    },
  }
}

function changed(
  before: Record<string, string> | undefined,
  changes: Record<string, string | undefined>,
): Record<string, string> {
  const all = Object.entries({ ...before, ...changes })
  return Object.fromEntries(all.flatMap(([key, text]) => (text === undefined ? [] : [[key, text]])))
}

interface LeaseAnnotation {
  read(): Promise<string | undefined>
  /**
   * Rejects with a 409 where another process has changed the text since it was last read or written
   * here. Writes nothing where there is no Lease: nobody leads then, and there is nothing to share.
   */
  write(text: string): Promise<void>
}

/** The leader renews meanwhile: a write that meets a renewal is tried again. */
const mostTries = 5

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
  let known: { text: string | undefined } | undefined

  /** Every write carries the version that was read. */
  async function write(text: string, triesLeft: number): Promise<void> {
    const { metadata } = await client.coordination.readNamespacedLease({ namespace, name })
    const before = metadata?.annotations?.[annotation]
    if (known !== undefined && known.text !== before) throw changedByOthers(id, annotation)
    const resourceVersion = metadata?.resourceVersion
    const body = { metadata: { resourceVersion, annotations: { [annotation]: text } } }
    try {
      await client.coordination.patchNamespacedLease(
        { namespace, name, body },
        setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
      )
      known = { text }
    } catch (error) {
      const isNewer = asKubernetesError(`annotate ${id}`, error).status === 409
      if (!isNewer || triesLeft === 0) throw error
      await write(text, triesLeft - 1)
    }
  }

  return {
    read: async () => {
      const reading = api.readNamespacedLease({ namespace, name })
      const lease = await unlessStatus([404], `read ${id}`, reading)
      known = { text: lease?.metadata?.annotations?.[annotation] }
      return known.text
    },
    write: text => unlessStatus([404], `annotate ${id}`, write(text, mostTries)),
  }
}

function changedByOthers(id: string, annotation: string): KubernetesError {
  const message = `cannot annotate ${id}: another process has changed ${annotation}`
  return new KubernetesError(message, { status: 409, reason: 'Conflict' })
}

import { type V1LeaseSpec, V1MicroTime } from '@kubernetes/client-node'

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

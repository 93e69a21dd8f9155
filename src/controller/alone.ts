import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Lease } from '@kubernetes/client-node'
import type { Inventory } from '../issuer/inventory.ts'
import type { Leadership } from '../kubernetes/leader-election.ts'
import { mayTake, type Observation, observe } from '../kubernetes/lease.ts'
import type { Identity } from './identity.ts'

/** The organizations in which the leader may revoke tokens, in an annotation of its Lease. */
const annotation = 'pullpass.io/alone'

/** The leader has looked at a list: `clean-up` beside it goes by what it finds. */
export function shareAlone({
  leadership,
  organizations,
  mayRevoke,
}: {
  leadership: Leadership
  organizations: () => Iterable<string>
  mayRevoke: (organization: string) => boolean
}): void {
  if (!leadership.leading()) return
  const alone = [...organizations()].filter(mayRevoke).toSorted()
  leadership.annotate(annotation, JSON.stringify(alone))
}

export function forgetAlone(leadership: Leadership): void {
  leadership.annotate(annotation, undefined)
}

function readAlone(text: string | undefined): ReadonlySet<string> {
  try {
    const found: unknown = JSON.parse(text ?? '[]')
    return new Set(Array.isArray(found) ? found.map(String) : [])
  } catch {
    return new Set()
  }
}

/** What a command that runs beside the service sees of the Lease. */
export interface LeaseView {
  /** Whether a replica leads, and where it may revoke. Waits for a renewal, or for the lack of one. */
  look(signal: AbortSignal): Promise<{ leads: boolean; alone: ReadonlySet<string> }>
}

const pollMs = 500

export function createLeaseView({ read }: { read: () => Promise<V1Lease | undefined> }): LeaseView {
  let observation: Observation | undefined
  let renews = false
  return {
    look: async signal => {
      for (;;) {
        const lease = await read()
        const before = observation
        observation = observe(before, lease?.spec ?? {}, performance.now())
        const isFree = mayTake(observation, '', performance.now())
        renews = !isFree && (renews || (before !== undefined && before !== observation))
        const alone = readAlone(lease?.metadata?.annotations?.[annotation])
        if (isFree || renews) return { leads: renews, alone }
        await sleep(pollMs, undefined, { signal })
      }
    },
  }
}

/** For a name under which no replica of this cluster leads. */
export const nobodyLeads: LeaseView = { look: async () => ({ leads: false, alone: new Set() }) }

/** Whether this process is the only one that acts under its name. */
export interface Alone {
  /** Lists until that is certain, and resolves to the organizations in use. Rejects if it is not so. */
  obtain(): Promise<readonly string[]>
  /** The same, without a list where the last one is younger than the interval. */
  keep(): Promise<readonly string[]>
  mayRevoke(organization: string): boolean
}

/** Tokens are not revoked, or not all. */
export class CleanUpError extends Error {
  override readonly name = 'CleanUpError'
}

interface AloneDependencies {
  /** Reads another list of every organization in use. Rejects where one cannot be read. */
  list: () => Promise<readonly string[]>
  lease: LeaseView
  identity: Identity
  /** The nonces on the Lease now. */
  nonces: () => Promise<ReadonlySet<string>>
  inventory: Inventory
  /** Called with a line for people, once. */
  waits: (what: string) => void
}

interface AloneSettings {
  listEveryMs: number
}

interface State extends AloneDependencies {
  settings: AloneSettings
  signal: AbortSignal
  organizations: readonly string[]
  /** When the last lists were complete. Milliseconds of a monotonic clock. */
  listedAt: number
  allowed: (organization: string) => boolean
  waited: boolean
}

/** The mark needs 1.5 intervals: the third list decides. */
const pauseOfInterval = 0.8
const mostIntervals = 5

/**
 * The rule of `identity.ts`, for a command that takes back tokens.
 *
 * | who leads                                     | tokens of an organization may be revoked            |
 * |-----------------------------------------------|-----------------------------------------------------|
 * | a replica renews the Lease                    | if it says so on the Lease, and the list shows no   |
 * |                                               | mark but those on the Lease                         |
 * | the Lease is free, or not renewed any more    | when a mark of this process has stood alone for so  |
 * |                                               | long that the other side would have answered        |
 * | the environment cannot list                   | never                                               |
 *
 * A mark on the Lease alone proves nothing: the Lease of a clone contains those of the first cluster.
 */
export function createAlone(
  dependencies: AloneDependencies,
  settings: AloneSettings,
  signal: AbortSignal,
): Alone {
  const state: State = {
    ...dependencies,
    settings,
    signal,
    organizations: [],
    listedAt: Number.NEGATIVE_INFINITY,
    allowed: () => false,
    waited: false,
  }
  const obtain = () => untilAlone(state)
  return {
    obtain,
    keep: async () => {
      const isFresh = performance.now() - state.listedAt < settings.listEveryMs
      return isFresh ? state.organizations : obtain()
    },
    mayRevoke: organization => state.allowed(organization),
  }
}

async function untilAlone(state: State): Promise<readonly string[]> {
  const { list, inventory, settings, signal, waits } = state
  const { listEveryMs } = settings
  const end = performance.now() + mostIntervals * listEveryMs
  for (;;) {
    state.allowed = () => false
    state.organizations = await list()
    state.listedAt = performance.now()
    const cannot = state.organizations.find(each => inventory.organization(each).unsupported)
    if (cannot !== undefined) {
      throw new CleanUpError(
        `organization "${cannot}": the environment cannot list its tokens: nothing is revoked`,
      )
    }
    const allowed = await judge(state)
    if (state.organizations.every(allowed)) {
      state.allowed = allowed
      return state.organizations
    }
    if (performance.now() >= end) throw new CleanUpError(notAlone)
    if (!state.waited) waits(waitText(mostIntervals * listEveryMs))
    state.waited = true
    await sleep(pauseOfInterval * listEveryMs, undefined, { signal })
  }
}

const notAlone =
  'it is not certain that no other pullpass uses the name of this cluster: nothing is revoked. See /readyz of pullpass, and try again'

function waitText(ms: number): string {
  return `waiting until it is certain that no other pullpass uses the name of this cluster: ${Math.ceil(ms / 1000)} s at most`
}

async function judge(state: State): Promise<(organization: string) => boolean> {
  const { lease, identity, signal, organizations } = state
  const { leads, alone } = await lease.look(signal)
  if (leads) {
    await refuseOthers(state)
    return organization => alone.has(organization)
  }
  for (const each of organizations) await identity.onList(each)
  const alarm = identity.alarm()
  if (alarm !== undefined) throw new CleanUpError(alarm)
  return organization => identity.mayRevoke({ organization, mintedByUs: false })
}

async function refuseOthers({ inventory, nonces, organizations }: State): Promise<void> {
  const ours = await nonces()
  const shown = organizations.flatMap(each => [...inventory.organization(each).marks().keys()])
  if (shown.every(nonce => ours.has(nonce))) return
  throw new CleanUpError(
    'another pullpass uses the name of this cluster: nothing is revoked. Set clusterName to another name in one of the two',
  )
}

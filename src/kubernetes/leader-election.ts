import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Lease } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { Gauge, Registry } from 'prom-client'
import type { KubernetesClient } from './client.ts'
import {
  createLeaseStore,
  type LeaseStore,
  mayTake,
  type Observation,
  observe,
  released,
  takenBy,
} from './lease.ts'

export interface Leadership {
  /** The lease is certainly ours at this moment, whatever happened to this process in between. */
  leading(): boolean
  onChange(listener: (leading: boolean) => void): void
}

interface LeaderOptions {
  client: Pick<KubernetesClient, 'coordination'>
  namespace: string
  name: string
  /** Another one for each process that ever runs, a restarted container's included. */
  identity: string
  /** Whole seconds after which others may take a lease that is not renewed. */
  leaseSeconds: number
  /** Pause between renewals, and limit of each request; at most a third of `leaseSeconds`. */
  renewSeconds: number
  logger: Logger
  metrics?: Registry
  /** Monotonic milliseconds. */
  now?: () => number
}

/** Others wait for all of it, and start later; we count from before our request left. */
const CERTAIN_PART = 2 / 3

/**
 * Holds a coordination.k8s.io Lease while it can, by the rules of client-go's leader election.
 * `release` ends it for good; what is done under the lease should have ended before, since the next
 * candidate takes over at once.
 */
export function createLeader(
  options: LeaderOptions,
): Leadership & { start(): void; release(): Promise<void>; problem(): string | undefined } {
  const { namespace, name, identity, metrics = new Registry() } = options
  const logger = options.logger.child({ lease: `${namespace}/${name}`, identity })
  const now = options.now ?? performance.now.bind(performance)
  const help = '1 where this replica leads'
  const gauge = new Gauge({ name: 'pullpass_leader', help, registers: [metrics] })
  const changed = (leading: boolean) => {
    gauge.set(Number(leading))
    logger.info(leading ? 'leading' : 'not leading any more')
  }
  const state: State = {
    ...options,
    now,
    logger,
    store: createLeaseStore({ ...options, limitMs: options.renewSeconds * 1000 }),
    validity: createLeaseValidity({ now, logger, changed }),
    stopping: new AbortController(),
    held: undefined,
    observation: undefined,
    lastError: undefined,
  }
  let loop: Promise<void> | undefined
  return {
    leading: state.validity.current,
    onChange: state.validity.onChange,
    problem: () => state.lastError,
    start() {
      loop ??= run(state)
    },
    async release() {
      state.stopping.abort()
      state.validity.end()
      await loop
      await giveBack(state).catch(error => report(state, error))
    },
  }
}

interface State extends LeaderOptions {
  readonly now: () => number
  readonly store: LeaseStore
  readonly validity: LeaseValidity
  readonly stopping: AbortController
  /** The Lease as our last write left it. */
  held: V1Lease | undefined
  observation: Observation | undefined
  lastError: string | undefined
}

async function run(state: State): Promise<void> {
  const { signal } = state.stopping
  while (!signal.aborted) {
    const error = await takeOrRenew(state).then(nothing, (failure: Error) => failure)
    report(state, error)
    // Candidates ask more often, lest a released lease lie idle, and out of step.
    // Nor does a leader whose renewal failed wait until the lease is in doubt.
    const calm = state.validity.current() && !error
    const part = calm ? 1 : 0.2 * (1 + Math.random())
    await sleep(state.renewSeconds * 1000 * part, undefined, { signal }).catch(() => {})
  }
}

async function takeOrRenew(state: State): Promise<void> {
  const { held, store, identity, validity } = state
  state.held = undefined
  if (held && (await take(state, held))) return
  const lease = await store.read()
  if (!lease) return void (await take(state, undefined))
  state.observation = observe(state.observation, lease.spec ?? {}, state.now())
  if (mayTake(state.observation, identity, state.now())) await take(state, lease)
  else validity.end()
}

/** True: the lease is ours, from the time before the request was sent. */
async function take(state: State, before: V1Lease | undefined): Promise<boolean> {
  const { store, identity, leaseSeconds, validity } = state
  const requestedAt = state.now()
  const spec = takenBy(identity, before?.spec, { leaseSeconds, wallClock: new Date() })
  state.held = await store.write(before, spec)
  if (!state.held || state.stopping.signal.aborted) return state.held !== undefined
  validity.extend(requestedAt + leaseSeconds * 1000 * CERTAIN_PART)
  return true
}

async function giveBack({ store, identity }: State): Promise<void> {
  const lease = await store.read()
  if (lease?.spec?.holderIdentity !== identity) return
  await store.write(lease, released(lease.spec, new Date()))
}

const nothing = () => undefined

/** Once for each kind of failure, not with each of its repetitions. */
function report(state: State, error: Error | undefined): void {
  const told = error === undefined || error.message === state.lastError
  if (!told) state.logger.warn({ error: error.message }, 'lease not read or written')
  state.lastError = error?.message
}

/** The time for which leading is certain, and who wants to know when it begins and ends. */
interface LeaseValidity {
  /**
   * By the clock at this moment, so it is right also in the first instant after the process was
   * stopped.
   */
  current(): boolean
  /**
   * Certain until `until` (milliseconds of the clock). A gap since the last validity is told as an
   * end.
   */
  extend(until: number): void
  end(): void
  onChange(listener: (leading: boolean) => void): void
}

/** Whether the lease is held, by this process's own clock: it ends by itself unless prolonged. */
function createLeaseValidity(options: {
  now: () => number
  logger: Logger
  /** Called before the listeners. */
  changed: (leading: boolean) => void
}): LeaseValidity {
  const { now, logger } = options
  const listeners = [options.changed]
  let certainUntil = Number.NEGATIVE_INFINITY
  let told = false
  let expiry: NodeJS.Timeout | undefined

  const current = () => now() < certainUntil

  function tell(): void {
    clearTimeout(expiry)
    const leading = current()
    if (leading) expiry = setTimeout(tell, certainUntil - now() + 1)
    if (leading === told) return
    told = leading
    for (const listener of listeners) call(logger, () => listener(leading))
  }

  return {
    current,
    extend(until) {
      tell()
      certainUntil = until
      tell()
    },
    end() {
      certainUntil = Number.NEGATIVE_INFINITY
      tell()
    },
    onChange: listener => listeners.push(listener),
  }
}

function call(logger: Logger, listener: () => void): void {
  try {
    listener()
  } catch (error) {
    logger.error({ error: (error as Error).name }, 'a listener failed: this is a bug')
  }
}

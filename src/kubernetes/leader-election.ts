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
  /** Whether this process holds the Lease for certain at this moment, even just after it was paused. */
  leading(): boolean
  onChange(listener: (leading: boolean) => void): void
  /**
   * What this replica, while it leads, has in an annotation of the Lease. A change is written at
   * once, in the request that renews: nobody but the holder writes it, and only over the state that
   * was read. Undefined: no such annotation.
   */
  annotate(annotation: string, text: string | undefined): void
  /** Calls the listener with the annotations of the Lease each time they are read while another replica leads. */
  onAnnotations(listener: (annotations: Record<string, string>) => void): void
}

interface LeaderDependencies {
  client: KubernetesClient
  logger: Logger
  metrics?: Registry
  /** Monotonic milliseconds. */
  now?: () => number
}

interface LeaderSettings {
  namespace: string
  name: string
  /** Unique for each process that ever runs, also for a restarted container. */
  identity: string
  /** Whole seconds after which others may take a Lease that is not renewed. */
  leaseSeconds: number
  /** Pause between renewals, and limit of each request; at most a third of `leaseSeconds`. */
  renewSeconds: number
}

export interface Leader extends Leadership {
  start(): void
  /** Gives the Lease back for good. End the leader's work first: the next candidate takes over at once. */
  release(): Promise<void>
  /** Why the Lease cannot be read or updated at the moment. */
  problem(): string | undefined
}

/** Others wait for all of it, and start later; we count from before our request left. */
const CERTAIN_PART = 2 / 3

/** Holds a coordination.k8s.io Lease while it can, by the rules of client-go's leader election. */
export function createLeader(dependencies: LeaderDependencies, settings: LeaderSettings): Leader {
  const { client, metrics = new Registry(), now = performance.now.bind(performance) } = dependencies
  const { namespace, name, identity, leaseSeconds, renewSeconds } = settings
  const logger = dependencies.logger.child({ lease: `${namespace}/${name}`, identity })
  const gauge = createGauge(metrics)
  const state: State = {
    identity,
    leaseSeconds,
    renewSeconds,
    now,
    logger,
    store: createLeaseStore({ client }, { namespace, name, limitMs: renewSeconds * 1000 }),
    validity: createLeaseValidity({ now, logger, changed: leading => gauge.set(Number(leading)) }),
    stopping: new AbortController(),
    held: undefined,
    observation: undefined,
    lastError: undefined,
    annotations: {},
    listeners: [],
    wake: new AbortController(),
  }
  let loop: Promise<void> | undefined
  return {
    leading: state.validity.current,
    onChange: state.validity.onChange,
    annotate: (annotation, text) => annotate(state, annotation, text),
    onAnnotations: listener => void state.listeners.push(listener),
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

function createGauge(metrics: Registry) {
  const help = '1 where this replica leads'
  return new Gauge({ name: 'pullpass_leader', help, registers: [metrics] })
}

interface State {
  readonly identity: string
  readonly leaseSeconds: number
  readonly renewSeconds: number
  readonly now: () => number
  readonly logger: Logger
  readonly store: LeaseStore
  readonly validity: LeaseValidity
  readonly stopping: AbortController
  /** The Lease as our last write left it. */
  held: V1Lease | undefined
  observation: Observation | undefined
  lastError: string | undefined
  annotations: Record<string, string | undefined>
  readonly listeners: ((annotations: Record<string, string>) => void)[]
  /** Ends the pause before the next renewal. */
  wake: AbortController
}

function annotate(state: State, annotation: string, text: string | undefined): void {
  const isNew = !(annotation in state.annotations) || state.annotations[annotation] !== text
  state.annotations[annotation] = text
  if (isNew && state.validity.current()) state.wake.abort()
}

/** Candidates learn within a second what the leader writes, and that the lease is free. */
const longestPauseMs = 800

async function run(state: State): Promise<void> {
  const { signal } = state.stopping
  while (!signal.aborted) {
    const error = await takeOrRenew(state).then(nothing, (failure: Error) => failure)
    report(state, error)
    // A candidate asks more often, so that it finds a released Lease soon, and at random moments.
    // A leader whose renewal failed tries again before the Lease is in doubt.
    const isHolding = state.held !== undefined && !error
    const part = isHolding ? 1 : 0.2 * (1 + Math.random())
    const pauseMs = state.renewSeconds * 1000 * part
    const wake = AbortSignal.any([signal, state.wake.signal])
    await sleep(isHolding ? pauseMs : Math.min(pauseMs, longestPauseMs), undefined, {
      signal: wake,
    }).catch(() => {})
    state.wake = new AbortController()
  }
}

async function takeOrRenew(state: State): Promise<void> {
  const { held, store, identity, validity } = state
  state.held = undefined
  if (held && (await take(state, held))) return
  const lease = await store.read()
  if (!lease) return void (await take(state, undefined))
  state.observation = observe(state.observation, lease.spec ?? {}, state.now())
  if (mayTake(state.observation, identity, state.now())) return void (await take(state, lease))
  validity.end()
  const annotations = lease.metadata?.annotations ?? {}
  for (const listener of state.listeners) call(state.logger, () => listener(annotations))
}

/** True: this process holds the Lease, from the moment before it sent the request. */
async function take(state: State, before: V1Lease | undefined): Promise<boolean> {
  const { store, identity, leaseSeconds, validity } = state
  const requestedAt = state.now()
  const spec = takenBy(identity, before?.spec, { leaseSeconds, wallClock: new Date() })
  state.held = await store.write(before, { spec, annotations: state.annotations })
  if (!state.held || state.stopping.signal.aborted) return state.held !== undefined
  validity.extend(requestedAt + leaseSeconds * 1000 * CERTAIN_PART)
  return true
}

async function giveBack({ store, identity }: State): Promise<void> {
  const lease = await store.read()
  if (lease?.spec?.holderIdentity !== identity) return
  await store.write(lease, { spec: released(lease.spec, new Date()), annotations: {} })
}

const nothing = () => undefined

/** Logs a failure once, not each time it repeats. */
function report(state: State, error: Error | undefined): void {
  if (error !== undefined && error.message !== state.lastError) {
    state.logger.warn({ error: error.message }, 'cannot read or update the Lease')
  }
  state.lastError = error?.message
}

/** The time during which this process leads for certain, with listeners for its beginning and end. */
interface LeaseValidity {
  /** By the clock at this moment, so it is right also just after the process was paused. */
  current(): boolean
  /**
   * Valid until `until` (milliseconds of the clock). A gap since the last validity is reported as
   * its end.
   */
  extend(until: number): void
  end(): void
  onChange(listener: (leading: boolean) => void): void
}

/** Counts by the clock of this process; ends by itself unless it is extended. */
function createLeaseValidity(options: {
  now: () => number
  logger: Logger
  /** Called before the listeners. */
  changed: (leading: boolean) => void
}): LeaseValidity {
  const { now, logger } = options
  const listeners = [options.changed]
  let certainUntil = Number.NEGATIVE_INFINITY
  let reported = false
  let expiry: NodeJS.Timeout | undefined

  const current = () => now() < certainUntil

  function reportChange(): void {
    clearTimeout(expiry)
    const leading = current()
    if (leading) expiry = setTimeout(reportChange, certainUntil - now() + 1)
    if (leading === reported) return
    reported = leading
    logger.info(leading ? 'leading' : 'not leading any more')
    for (const listener of listeners) call(logger, () => listener(leading))
  }

  return {
    current,
    extend(until) {
      reportChange()
      certainUntil = until
      reportChange()
    },
    end() {
      certainUntil = Number.NEGATIVE_INFINITY
      reportChange()
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

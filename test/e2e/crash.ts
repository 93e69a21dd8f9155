import { setTimeout as sleep } from 'node:timers/promises'
import { waitFor } from '../../sandbox/processes.ts'
import type { Replica, Replicas } from '../../sandbox/replicas.ts'
import { type Action, actionSettings } from './actions.ts'
import type { CheckedCluster } from './checked-cluster.ts'
import { listenToAll, type Moment, type Requests, renewal } from './requests.ts'

/** A request of the leader during an action: the first with this name, the second, ... */
export interface Point {
  request: string
  nth: number
  moment: Moment
}

/** A point of an action in this namespace. */
export interface Moving {
  point: Point
  action: Action
  namespace: string
}

export interface CrashRun {
  /** All points of an action, in order; only the first renewal of the Lease. */
  record(action: Action, namespace: string): Promise<Point[]>
  /** Kills the leader at this point. Resolves when the action is complete; false if the point did not occur. */
  killAt(moving: Moving): Promise<boolean>
  /** Brings each to its point, then kills the leader. */
  killAll(moving: Moving[]): Promise<void>
  /**
   * Brings each to its point, then suspends the leader for longer than its Lease. Requests that were
   * not handled yet are handled later, after another leader has finished. Then the former leader continues.
   */
  stopAll(moving: Moving[]): Promise<void>
  /** Another replica becomes the leader and finds a namespace that needs a token. */
  readonly succession: Action
}

interface State {
  replicas: Replicas
  cluster: CheckedCluster
  requests: Requests
  /** The replica whose requests count; undefined: the next one that takes the Lease. */
  actor: Replica | undefined
  restarts: Promise<void>[]
  /** The term of the leader is not new. */
  isQuiet: boolean
}

const leasePath = '/apis/coordination.k8s.io/v1/namespaces/pullpass/leases/pullpass'

/** For three replicas: one leads, one waits, one may be restarting. */
export function createCrashRun(replicas: Replicas, cluster: CheckedCluster): CrashRun {
  const requests = listenToAll(replicas, () => state.actor)
  const state: State = {
    replicas,
    cluster,
    requests,
    actor: undefined,
    restarts: [],
    isQuiet: false,
  }
  return {
    record: (action, namespace) => record(state, action, namespace),
    killAt: moving => killAt(state, moving),
    killAll: moving => killAll(state, moving),
    stopAll: moving => stopAll(state, moving),
    succession: {
      name: 'take over, and mint',
      prepare: async () => {},
      ready: async () => {
        await Promise.all(state.restarts)
        await killActor(state)
      },
      begin: async namespace => {
        await cluster.namespace(namespace)
        await giveLeaseBack(state)
      },
      whenDone: cluster.whenRight,
    },
  }
}

async function record(state: State, action: Action, namespace: string): Promise<Point[]> {
  const made: Point[] = []
  const hold = holdUntilRenewed()
  await quiet(state)
  await whenLeaderIsReady(state, action)
  follow(state, async point => {
    const isNew = point.moment === 'before' && (point.request !== renewal || point.nth === 1)
    if (isNew) made.push(point, { ...point, moment: 'after' })
    await hold(point)
    return undefined
  })
  await action.begin(namespace)
  await action.whenDone(namespace)
  state.requests.hear(undefined)
  return made
}

async function killAt(state: State, { point, action, namespace }: Moving): Promise<boolean> {
  const sprung = Promise.withResolvers<boolean>()
  const hold = point.request === renewal ? holdUntilRenewed() : async () => {}
  await whenLeaderIsReady(state, action)
  follow(state, async met => {
    if (!isSame(met, point)) {
      await Promise.race([hold(met), sprung.promise])
      return undefined
    }
    state.requests.hear(undefined)
    await killActor(state)
    await giveLeaseBack(state)
    sprung.resolve(true)
    return 'drop'
  })
  await action.begin(namespace)
  const done = action.whenDone(namespace)
  const killed = await Promise.race([sprung.promise, done.then(() => sleep(1000, false))])
  state.requests.hear(undefined)
  await done
  return killed
}

async function killAll(state: State, moving: Moving[]): Promise<void> {
  const gate = Promise.withResolvers<'drop'>()
  await bringToPoints(state, moving, gate.promise)
  await killActor(state)
  await giveLeaseBack(state)
  gate.resolve('drop')
}

async function stopAll(state: State, moving: Moving[]): Promise<void> {
  const gate = Promise.withResolvers<undefined>()
  const leader = await bringToPoints(state, moving, gate.promise)
  state.isQuiet = false
  leader.pause()
  // Requests that are handled by now are answered, but the suspended process does not read the answers.
  if (moving[0]?.point.moment === 'after') gate.resolve(undefined)
  await state.replicas.whenLed([leader])
  await Promise.all(moving.map(({ action, namespace }) => action.whenDone(namespace)))
  gate.resolve(undefined)
  await sleep(300)
  leader.resume()
}

/** One after the other, each in its namespace. All of them wait there until the gate opens. */
async function bringToPoints(
  state: State,
  moving: Moving[],
  gate: Promise<'drop' | undefined>,
): Promise<Replica> {
  await quiet(state)
  const leader = await whenLeaderIsReady(state)
  for (const { point, action, namespace } of moving) {
    let isThere = false
    follow(state, async met => {
      if (isThere || !isSame(met, point)) return undefined
      isThere = true
      return gate
    })
    await action.begin(namespace)
    await waitFor(() => isThere, {
      withinMs: 60_000,
      what: `${action.name}: ${point.moment} ${point.request} ${point.nth}`,
    })
  }
  state.requests.hear(undefined)
  return leader
}

/** A new leader lists all tokens at once, and again after one Lease. Then only the action causes requests. */
async function quiet(state: State): Promise<void> {
  if (state.isQuiet) return
  await state.replicas.whenLed()
  await sleep(actionSettings.leader.leaseSeconds * 1000 + 500)
  state.isQuiet = true
}

/** The leader, with another replica that is ready to take over. */
async function whenLeaderIsReady(state: State, action?: Action): Promise<Replica> {
  await Promise.all(state.restarts.slice(0, -1))
  const leader = await state.replicas.whenLed()
  state.actor = leader
  await action?.ready?.()
  return leader
}

/** Counts the requests of the leader from now on; `met` decides about each. */
function follow(state: State, met: (point: Point) => Promise<'drop' | undefined>): void {
  const counts = new Map<string, number>()
  state.requests.hear(async (request, moment, replica) => {
    if (state.actor === undefined && request === renewal) state.actor = replica
    // Of two replicas that try to take the Lease, the first one that tried gets it.
    if (replica !== state.actor) return request === renewal ? 'drop' : undefined
    const key = `${moment} ${request}`
    const nth = (counts.get(key) ?? 0) + 1
    counts.set(key, nth)
    return met({ request, nth, moment })
  })
}

function isSame(met: Point, point: Point): boolean {
  return met.request === point.request && met.moment === point.moment && met.nth === point.nth
}

/** Delays an action until the Lease is renewed. */
function holdUntilRenewed(): (point: Point) => Promise<void> {
  const renewed = Promise.withResolvers<void>()
  return async ({ request, moment }) => {
    if (request === renewal && moment === 'after') renewed.resolve()
    if (request.startsWith('environment')) await Promise.race([renewed.promise, sleep(3000)])
  }
}

async function killActor(state: State): Promise<void> {
  const victim = state.actor
  state.isQuiet = false
  state.actor = undefined
  await victim?.kill()
  if (victim !== undefined) state.restarts.push(victim.restart())
}

/**
 * Simulates the expiry of the Lease of a dead process. A leader that dies during its login counts as
 * one without an answer, and the third one in 20 minutes would delay the next leader: so none counts.
 */
async function giveLeaseBack({ cluster }: State): Promise<void> {
  const spec = { holderIdentity: '', leaseDurationSeconds: 1 }
  const metadata = { annotations: { 'pullpass.io/logins': null } }
  await cluster.ask('PATCH', leasePath, { metadata, spec })
}

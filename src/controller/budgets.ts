import { LRUCache } from 'lru-cache'

export type Budget = 'mint' | 'failed_write' | 'change' | 'check'

export interface Budgets {
  /** Throws a TooManyChanges where the namespace has to wait. Takes nothing. */
  check(namespace: string, budget: Budget): void
  take(namespace: string, budget: Budget): void
  /** Something that matters changed: failed writes wait for one short pause again. */
  relax(namespace: string): void
  /** The namespace is another one of the same name. Its mints still count. */
  reset(namespace: string): void
}

/** The budget of a namespace is used up. Other namespaces do not wait for it. */
export class TooManyChanges extends Error {
  override readonly name = 'TooManyChanges'
  readonly retryAfterMs: number

  constructor(retryAtMs: number, nowMs: number) {
    const time = `${new Date(retryAtMs).toISOString().slice(0, 19)}Z`
    super(`the pull secret is changed too often; next try at ${time}`)
    this.retryAfterMs = retryAtMs - nowMs
  }
}

interface Limit {
  /** So many at once, then one after each pause. */
  burst: number
  pauseMs: number
  /** The pause doubles with each use, up to this. */
  longestPauseMs: number
}

/*
 * What the owner of one namespace can cause, whatever is done to the Secret there. These budgets
 * come before the limits that all namespaces share.
 *
 * | budget       | counts                                              | at once | then             |
 * |--------------|-----------------------------------------------------|---------|------------------|
 * | mint         | tokens minted                                       | 3       | 3 in ten minutes |
 * | failed_write | writes that the namespace itself makes fail         | 2       | 10 s to 5 min    |
 * | change       | steps that succeeded: many are a fight with another | 6       | 10 s to 5 min    |
 * | check        | credentials that the registry was asked about       | 3       | 10 s to 5 min    |
 *
 * A namespace that asks for nothing during two pauses begins anew with all of its burst. A change
 * that matters (`failures.ts`) makes the pause of failed writes short again.
 */
const backOff = { pauseMs: 10_000, longestPauseMs: 300_000 }
const limits: Record<Exclude<Budget, 'mint'>, Limit> = {
  failed_write: { burst: 2, ...backOff },
  // A token, its rotation and its end within ten seconds are no fight.
  change: { burst: 6, ...backOff },
  check: { burst: 3, ...backOff },
}
const mostMints = 3
const mintsMs = 600_000
/** Namespaces come and go for years. */
const mostRemembered = 60_000

interface Use {
  count: number
  pauseMs: number
  freeAt: number
  askedAt: number
}

interface State {
  uses: LRUCache<string, Use>
  mints: LRUCache<string, number[]>
  now: () => number
}

export function createBudgets(now: () => Date): Budgets {
  const state: State = {
    uses: new LRUCache({ max: mostRemembered }),
    mints: new LRUCache({ max: mostRemembered }),
    now: () => now().getTime(),
  }
  return {
    check: (namespace, budget) => {
      const freeAt =
        budget === 'mint' ? mintFreeAt(state, namespace) : freeAtOf(state, namespace, budget)
      if (freeAt > state.now()) throw new TooManyChanges(freeAt, state.now())
    },
    take: (namespace, budget) => {
      if (budget === 'mint') takeMint(state, namespace)
      else takeOne(state, namespace, budget)
    },
    relax: namespace => {
      const use = state.uses.get(`failed_write/${namespace}`)
      if (use !== undefined) Object.assign(use, shortened(use, limits.failed_write.pauseMs))
    },
    reset: namespace => {
      for (const budget of Object.keys(limits)) state.uses.delete(`${budget}/${namespace}`)
    },
  }
}

function mintFreeAt({ mints, now }: State, namespace: string): number {
  const times = (mints.get(namespace) ?? []).filter(time => time > now() - mintsMs)
  return times.length < mostMints ? 0 : (times[0] ?? 0) + mintsMs
}

function takeMint({ mints, now }: State, namespace: string): void {
  mints.set(namespace, [...(mints.get(namespace) ?? []), now()].slice(-mostMints))
}

function freeAtOf({ uses, now }: State, namespace: string, budget: keyof typeof limits): number {
  const use = uses.get(`${budget}/${namespace}`)
  if (use === undefined || isCalm(use, now())) return 0
  use.askedAt = now()
  return use.count < limits[budget].burst ? 0 : use.freeAt
}

function takeOne(state: State, namespace: string, budget: keyof typeof limits): void {
  const { burst, pauseMs, longestPauseMs } = limits[budget]
  const key = `${budget}/${namespace}`
  const time = state.now()
  const found = state.uses.get(key)
  const before =
    found === undefined || isCalm(found, time) ? { count: 0, pauseMs: pauseMs / 2 } : found
  const count = before.count + 1
  const pause = count < burst ? pauseMs / 2 : Math.min(2 * before.pauseMs, longestPauseMs)
  state.uses.set(key, { count, pauseMs: pause, freeAt: time + pause, askedAt: time })
}

function shortened({ freeAt, pauseMs }: Use, longestMs: number): Pick<Use, 'freeAt' | 'pauseMs'> {
  const pause = Math.min(pauseMs, longestMs)
  return { pauseMs: pause, freeAt: freeAt - pauseMs + pause }
}

/** Within two pauses of the last use or question it goes on. */
function isCalm({ pauseMs, askedAt }: Use, time: number): boolean {
  return time - askedAt > 2 * Math.max(pauseMs, backOff.pauseMs)
}

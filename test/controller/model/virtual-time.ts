import { AsyncLocalStorage } from 'node:async_hooks'
import { syncBuiltinESMExports } from 'node:module'
import timersPromises from 'node:timers/promises'

/** A process of the model: its timers and the answers to its calls. */
export interface Owner {
  /** Stopped: what is due waits. Ended: it never comes. */
  state: 'running' | 'stopped' | 'ended'
  held: (() => void)[]
}

export interface VirtualTime {
  now(): number
  /** Calls `run` after `ms`, as part of `owner`; undefined: of the world outside. */
  after(ms: number, run: () => void, owner?: Owner): void
  /** Whose code runs now. */
  owner(): Owner | undefined
  within<T>(owner: Owner | undefined, run: () => T): T
  resume(owner: Owner): void
  advance(ms: number): Promise<void>
  /** Gives the machine's clock and timers back. */
  uninstall(): void
}

interface Entry {
  at: number
  order: number
  run: () => void
  owner: Owner | undefined
  cancelled: boolean
}

const { nextTick } = process

/**
 * Puts a clock that only `advance` moves in the place of the machine's: timers, sleeps, performance.now
 * and Math.random. What runs is decided by the seed alone.
 */
export function installVirtualTime(start: number, random: () => number): VirtualTime {
  const state = { now: start, order: 0, heap: [] as Entry[] }
  const owners = new AsyncLocalStorage<Owner | undefined>()
  const frames = new Map<Owner | undefined, Enter>()
  const enter = (owner: Owner | undefined): Enter => {
    const found = frames.get(owner) ?? owners.run(owner, () => AsyncLocalStorage.snapshot())
    if (owner?.state !== 'ended') frames.set(owner, found)
    return found
  }
  const add = (ms: number, run: () => void, owner: Owner | undefined): Entry => {
    const at = state.now + Math.max(0, ms)
    const entry = { at, order: state.order++, run, owner, cancelled: false }
    push(state.heap, entry)
    return entry
  }
  const fire = ({ owner, run }: Entry) => {
    if (owner?.state === 'ended') return
    if (owner?.state === 'stopped') owner.held.push(run)
    else enter(owner)(run)
  }
  const uninstall = install(state, random, (ms, run) => add(ms, run, owners.getStore()))
  return {
    now: () => state.now,
    after: (ms, run, owner) => void add(ms, run, owner),
    owner: () => owners.getStore(),
    within: (owner, run) => enter(owner)(run),
    resume: owner => {
      owner.state = 'running'
      for (const run of owner.held.splice(0)) add(0, run, owner)
    },
    advance: async ms => {
      const end = state.now + ms
      await settled()
      for (let next = state.heap[0]; next !== undefined && next.at <= end; next = state.heap[0]) {
        pop(state.heap)
        if (next.cancelled) continue
        state.now = Math.max(state.now, next.at)
        fire(next)
        await settled()
      }
      state.now = end
    },
    uninstall,
  }
}

/** All promises that can go on have gone on: a tick comes when there is none of them left. */
function settled(): Promise<void> {
  return new Promise(resolve => nextTick(() => nextTick(resolve)))
}

/** Runs something as part of an owner. */
type Enter = <T>(run: () => T) => T

type Schedule = (ms: number, run: () => void) => Entry

function install(state: { now: number }, random: () => number, schedule: Schedule): () => void {
  const { setTimeout, setInterval, clearTimeout, clearInterval } = globalThis
  const now = performance.now.bind(performance)
  const { random: realRandom } = Math
  const { now: realNow } = Date
  const { setTimeout: realSleep } = timersPromises
  const start = state.now
  const timers = virtualTimers(schedule)
  Object.assign(globalThis, timers)
  performance.now = () => state.now - start
  Date.now = () => state.now
  Math.random = random
  Object.assign(timersPromises, { setTimeout: virtualSleep(schedule) })
  syncBuiltinESMExports()
  return () => {
    Object.assign(globalThis, { setTimeout, setInterval, clearTimeout, clearInterval })
    performance.now = now
    Date.now = realNow
    Math.random = realRandom
    Object.assign(timersPromises, { setTimeout: realSleep })
    syncBuiltinESMExports()
  }
}

/** Twice a second a leader shares its failures, which nobody reads here: most of what a walk would do. */
const shortestIntervalMs = 10_000

function virtualTimers(schedule: Schedule) {
  const handle = (entry: Entry) => {
    const timer = { entry, unref: () => timer, ref: () => timer, hasRef: () => false }
    return timer
  }
  const clear = (timer: ReturnType<typeof handle> | undefined) => {
    if (timer?.entry !== undefined) timer.entry.cancelled = true
  }
  return {
    setTimeout: (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) =>
      handle(schedule(ms, () => run(...args))),
    setInterval: (run: () => void, ms = 1) => {
      const everyMs = Math.max(ms, shortestIntervalMs)
      const again = () => {
        timer.entry = schedule(everyMs, again)
        run()
      }
      const timer = handle(schedule(everyMs, again))
      return timer
    },
    clearTimeout: clear,
    clearInterval: clear,
  }
}

function virtualSleep(schedule: Schedule) {
  return (ms = 0, value?: unknown, options: { signal?: AbortSignal } = {}) =>
    new Promise((resolve, reject) => {
      const { signal } = options
      const aborted = () => {
        entry.cancelled = true
        reject(new DOMException('The operation was aborted', 'AbortError'))
      }
      const entry = schedule(ms, () => {
        signal?.removeEventListener('abort', aborted)
        resolve(value)
      })
      if (signal?.aborted) aborted()
      else signal?.addEventListener('abort', aborted, { once: true })
    })
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}

function push(heap: Entry[], entry: Entry): void {
  let at = heap.push(entry) - 1
  while (at > 0) {
    const parent = (at - 1) >> 1
    const above = heap[parent] as Entry
    if (!isBefore(entry, above)) break
    heap[at] = above
    at = parent
  }
  heap[at] = entry
}

function pop(heap: Entry[]): void {
  const last = heap.pop() as Entry
  if (heap.length === 0) return
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && isBefore(heap[child + 1] as Entry, heap[child] as Entry)) child++
    if (!isBefore(heap[child] as Entry, last)) break
    heap[at] = heap[child] as Entry
    at = child
  }
  heap[at] = last
}

/** mulberry32: every run with the same seed draws the same numbers. */
export function createRandom(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

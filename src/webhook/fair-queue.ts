import { LRUCache } from 'lru-cache'

/** Things in the order of arrival, one of each remote address in turn. */
interface RoundRobin<T> {
  size: number
  sizeOf(address: string): number
  push(address: string, item: T): void
  /** The next item of the next address that may go. */
  shift(mayGo?: (address: string) => boolean): T | undefined
}

/** However many one address puts in, the first of another is at most one round away. */
export function createRoundRobin<T>(): RoundRobin<T> {
  const waiting = new Map<string, T[]>()
  const round: RoundRobin<T> = {
    size: 0,
    sizeOf: address => waiting.get(address)?.length ?? 0,
    push: (address, item) => {
      const items = waiting.get(address)
      if (items === undefined) waiting.set(address, [item])
      else items.push(item)
      round.size += 1
    },
    shift: (mayGo = () => true) => {
      for (const [address, items] of waiting) {
        if (!mayGo(address)) continue
        const item = items.shift()
        waiting.delete(address)
        if (items.length > 0) waiting.set(address, items)
        round.size -= 1
        return item
      }
      return undefined
    },
  }
  return round
}

export interface QueueLimits {
  /** Requests that wait for their turn. */
  perAddress: number
  inAll: number
  /** Requests of one address that are worked on, after `atOnce` of them. */
  perSecond: number
  atOnce: number
}

interface FairQueue {
  /** Runs it soon; false where too many wait, and it is never run. It must not throw. */
  add(address: string, run: () => void): boolean
}

/** Longest time without a pause, in which the event loop reads what has arrived. */
const longestTurnMs = 1
/** Where each address that waits has had its share. */
const shareEveryMs = 5

/**
 * Work on requests whose body is there. The addresses take turns, and so does the event loop. An
 * address that asks more often than it may gets its answers later: 500 connections that ask again
 * after each answer would otherwise use a whole CPU.
 */
export function createFairQueue(limits: QueueLimits): FairQueue {
  const waiting = createRoundRobin<() => void>()
  const mayGo = createShares(limits)
  let next: { cancel: () => void } | undefined
  const arrange = (isPaused: boolean) => {
    next?.cancel()
    next = waiting.size === 0 ? undefined : isPaused ? later(work) : soon(work)
  }
  const work = () => {
    const until = performance.now() + longestTurnMs
    let run: (() => void) | undefined
    do {
      run = waiting.shift(mayGo)
      run?.()
    } while (run !== undefined && performance.now() < until)
    arrange(run === undefined)
  }
  return {
    add: (address, run) => {
      const { perAddress, inAll } = limits
      if (waiting.size >= inAll || waiting.sizeOf(address) >= perAddress) return false
      waiting.push(address, run)
      if (waiting.sizeOf(address) === 1) arrange(false)
      return true
    },
  }
}

function soon(work: () => void): { cancel: () => void } {
  const immediate = setImmediate(work)
  return { cancel: () => clearImmediate(immediate) }
}

function later(work: () => void): { cancel: () => void } {
  const timer = setTimeout(work, shareEveryMs)
  return { cancel: () => clearTimeout(timer) }
}

/** More addresses than connections. */
const mostAddresses = 1000

/** Whether an address may go on, which counts: by the generic cell rate algorithm (ITU-T I.371). */
function createShares({ perSecond, atOnce }: QueueLimits): (address: string) => boolean {
  const everyMs = 1000 / perSecond
  const dueAt = new LRUCache<string, number>({ max: mostAddresses })
  return address => {
    const now = performance.now()
    const due = Math.max(dueAt.get(address) ?? 0, now - (atOnce - 1) * everyMs)
    if (due > now) return false
    dueAt.set(address, due + everyMs)
    return true
  }
}

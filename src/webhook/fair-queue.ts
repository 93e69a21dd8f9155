/** Things in the order of arrival, one of each remote address in turn. */
interface RoundRobin<T> {
  size: number
  sizeOf(address: string): number
  push(address: string, item: T): void
  shift(): T | undefined
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
    shift: () => {
      for (const [address, items] of waiting) {
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

interface FairQueue {
  /** Runs it soon; false where too many wait, and it is never run. It must not throw. */
  add(address: string, run: () => void): boolean
}

/** Longest time without a pause, in which the event loop reads what has arrived. */
const longestTurnMs = 1

/** Work on requests whose body is there. The addresses take turns, and so does the event loop. */
export function createFairQueue(most: { perAddress: number; inAll: number }): FairQueue {
  const waiting = createRoundRobin<() => void>()
  let isArranged = false
  const arrange = () => {
    if (isArranged || waiting.size === 0) return
    isArranged = true
    setImmediate(work)
  }
  const work = () => {
    isArranged = false
    const until = performance.now() + longestTurnMs
    do waiting.shift()?.()
    while (waiting.size > 0 && performance.now() < until)
    arrange()
  }
  return {
    add: (address, run) => {
      if (waiting.size >= most.inAll || waiting.sizeOf(address) >= most.perAddress) return false
      waiting.push(address, run)
      arrange()
      return true
    },
  }
}

import PQueue from 'p-queue'

/**
 * Order of work:
 *
 * | priority     | namespaces                                                   |
 * |--------------|--------------------------------------------------------------|
 * | `pod`        | a pod waits for the Secret                                   |
 * | `repair`     | the Secret exists and has to change, or the namespace leaves |
 * | `first_mint` | a first token has to be minted                               |
 *
 * Checks of credentials have a queue of their own (`verify.ts`).
 */
export type Priority = keyof typeof ranks

const ranks = { first_mint: 0, repair: 1, pod: 2 } as const

export interface KeyedQueue {
  /** Asks for a run of this key. A higher priority replaces a lower one. */
  add(key: string, priority: Priority): void
  /** Asks for a run after `ms`, without a worker. */
  addLater(key: string, priority: Priority, ms: number): void
  /** Forgets what has not begun. */
  clear(): void
  /** Resolves when nothing is running or waiting for a worker. */
  onIdle(): Promise<void>
}

/** Of those that wait for a time, so many are tried at once: the rest would only wait again. */
const mostTried = 32
const shortestWaitMs = 250

interface State {
  queue: PQueue
  run: (key: string) => Promise<void>
  waiting: Map<string, number>
  running: Map<string, { again: number | undefined }>
  later: Map<string, number>
  timer: NodeJS.Timeout | undefined
}

/**
 * Runs `run(key)` for every key asked for: never twice at once for one key, once more if it was
 * asked for again while it ran, `concurrency` keys at a time. `run` must not reject.
 */
export function createKeyedQueue(
  run: (key: string) => Promise<void>,
  concurrency: number,
): KeyedQueue {
  const state: State = {
    queue: new PQueue({ concurrency }),
    run,
    waiting: new Map(),
    running: new Map(),
    later: new Map(),
    timer: undefined,
  }
  return {
    add: (key, priority) => add(state, key, ranks[priority]),
    addLater: (key, priority, ms) => {
      state.later.set(key, ranks[priority])
      arm(state, ms)
    },
    clear: () => {
      clearTimeout(state.timer)
      state.timer = undefined
      state.later.clear()
      state.queue.clear()
      state.waiting.clear()
    },
    onIdle: () => state.queue.onIdle(),
  }
}

function add(state: State, key: string, rank: number): void {
  const { queue, waiting, running } = state
  const now = running.get(key)
  const queued = waiting.get(key)
  if (now !== undefined) {
    now.again = Math.max(rank, now.again ?? 0)
  } else if (queued === undefined) {
    waiting.set(key, rank)
    void queue.add(() => runOne(state, key), { id: key, priority: rank })
  } else if (rank > queued) {
    waiting.set(key, rank)
    queue.setPriority(key, rank)
  }
}

async function runOne(state: State, key: string): Promise<void> {
  const { waiting, running, later } = state
  const about: { again: number | undefined } = { again: undefined }
  waiting.delete(key)
  later.delete(key)
  running.set(key, about)
  await state.run(key)
  running.delete(key)
  if (about.again !== undefined) add(state, key, about.again)
}

function arm(state: State, ms: number): void {
  state.timer ??= setTimeout(() => tryLater(state), Math.max(ms, shortestWaitMs)).unref()
}

/** The first in the order of work. */
function tryLater(state: State): void {
  state.timer = undefined
  const first = [...state.later].toSorted(([, a], [, b]) => b - a).slice(0, mostTried)
  if (first.length < state.later.size) arm(state, shortestWaitMs)
  for (const [key, rank] of first) add(state, key, rank)
}

import PQueue from 'p-queue'

export interface KeyedQueue {
  /** Asks for a run of this key. The first that asks with `first` jumps the queue. */
  add(key: string, first?: boolean): void
  /** Forgets what has not begun. */
  clear(): void
  /** Resolves when nothing is running or waiting. */
  onIdle(): Promise<void>
}

/**
 * Runs `run(key)` for every key asked for: never twice at once for one key, once more if it was
 * asked for again while it ran, `concurrency` keys at a time. `run` must not reject.
 */
export function createKeyedQueue(
  concurrency: number,
  run: (key: string) => Promise<void>,
): KeyedQueue {
  const queue = new PQueue({ concurrency })
  const waiting = new Set<string>()
  const running = new Map<string, { again: boolean }>()

  async function runOne(key: string): Promise<void> {
    const state = { again: false }
    waiting.delete(key)
    running.set(key, state)
    await run(key)
    running.delete(key)
    if (state.again) add(key)
  }
  function add(key: string, first = false): void {
    const state = running.get(key)
    if (state !== undefined) {
      state.again = true
    } else if (!waiting.has(key)) {
      waiting.add(key)
      void queue.add(() => runOne(key), { id: key, priority: first ? 1 : 0 })
    } else if (first) {
      queue.setPriority(key, 1)
    }
  }
  return {
    add,
    clear: () => {
      queue.clear()
      waiting.clear()
    },
    onIdle: () => queue.onIdle(),
  }
}

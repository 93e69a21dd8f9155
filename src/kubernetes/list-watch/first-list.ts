import { once } from 'node:events'

export interface FirstList {
  arrived(): void
  /** Resolves when it has arrived; rejects only with the reason of `signal`. */
  whenThere(signal?: AbortSignal): Promise<void>
}

/** Something to wait for until the first list has arrived. */
export function createFirstList(): FirstList {
  const { promise, resolve } = Promise.withResolvers<void>()
  return {
    arrived: resolve,
    whenThere: async signal => {
      signal?.throwIfAborted()
      await Promise.race(signal ? [promise, once(signal, 'abort')] : [promise])
      signal?.throwIfAborted()
    },
  }
}

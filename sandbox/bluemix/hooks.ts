import type { Operation } from './faults.ts'

/**
 * | event         | fired                                                                  |
 * |---------------|------------------------------------------------------------------------|
 * | beforeRequest | a request is there whole, nothing was done for it                       |
 * | afterRequest  | its work is done and recorded, no byte of the answer was sent; not where a fault came before the work |
 * | an operation  | like afterRequest, for this operation only, where the answer is 2xx      |
 *
 * Listeners are awaited: a test ends the client from there and knows what the environment
 * holds. `'drop'` resets the connection: before, the work is not done; after, the answer is lost.
 */
export type EventName = 'beforeRequest' | 'afterRequest' | Operation

export interface RequestEvent {
  /** Counts all requests of this environment, from 1. */
  sequence: number
  operation: Operation | undefined
  method: string
  host: string
  /** Without the query. */
  path: string
  /** afterRequest and operations: what the work came to, whatever a fault makes of the answer. */
  status: number | undefined
}

export type Verdict = 'drop' | undefined
// biome-ignore lint/suspicious/noConfusingVoidType: a listener that returns nothing is the usual one
export type Listener = (event: RequestEvent) => Verdict | void | Promise<Verdict | void>

export interface Hooks {
  on(event: EventName, listener: Listener): () => void
  /** Tells all listeners, in order; `'drop'` where one of them said so. */
  tell(event: EventName, about: RequestEvent): Promise<Verdict>
}

export function createHooks(): Hooks {
  const listeners = new Map<EventName, Set<Listener>>()
  return {
    on: (event, listener) => {
      const set = listeners.get(event) ?? new Set()
      listeners.set(event, set.add(listener))
      return () => set.delete(listener)
    },
    tell: async (event, about) => {
      let verdict: Verdict
      for (const listener of listeners.get(event) ?? []) {
        if ((await listener(about)) === 'drop') verdict = 'drop'
      }
      return verdict
    },
  }
}

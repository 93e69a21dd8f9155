import type { Operation } from './faults.ts'

/**
 * | event         | fired                                                                  |
 * |---------------|------------------------------------------------------------------------|
 * | beforeRequest | a request has arrived completely and is not handled yet                |
 * | afterRequest  | it was handled and recorded, nothing of the response was sent; not after a fault before handling |
 * | an operation  | like afterRequest, for this operation only, where the answer is 2xx      |
 *
 * Listeners are awaited: a test can kill the client in one and knows the state of the environment.
 * `'drop'` resets the connection: before, the request is not handled; after, the response is lost.
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
  /** afterRequest and operations: the status before any fault changes the response. */
  status: number | undefined
}

export type Verdict = 'drop' | undefined
// biome-ignore lint/suspicious/noConfusingVoidType: a listener that returns nothing is the usual one
export type Listener = (event: RequestEvent) => Verdict | void | Promise<Verdict | void>

export interface Hooks {
  on(event: EventName, listener: Listener): () => void
  /** Calls all listeners, in order; `'drop'` if one of them returned it. */
  emit(event: EventName, about: RequestEvent): Promise<Verdict>
}

export function createHooks(): Hooks {
  const listeners = new Map<EventName, Set<Listener>>()
  return {
    on: (event, listener) => {
      const set = listeners.get(event) ?? new Set()
      listeners.set(event, set.add(listener))
      return () => set.delete(listener)
    },
    emit: async (event, about) => {
      let verdict: Verdict
      for (const listener of listeners.get(event) ?? []) {
        if ((await listener(about)) === 'drop') verdict = 'drop'
      }
      return verdict
    },
  }
}

import { LRUCache } from 'lru-cache'
import PQueue from 'p-queue'
import { type PullSecretIndex, readNamespace } from './pull-secret-index.ts'
import type { SecretStore } from './secret-store.ts'

export type IsOptedIn = (namespace: string, leftMs: number) => Promise<boolean>

/** A namespace that turned out not to be opted in is not read again for this long. */
const rememberMs = 1000
const mostRemembered = 500
/** Live reads at a time, in a second, and waiting for these two. */
const mostReads = 10
const readsPerSecond = 20
const mostWaiting = 40
/** A read that takes longer than any review gives its place to another. */
const longestReadMs = 30_000

/**
 * Whether a namespace is opted in. The API server asks only about pods of namespaces that it knows
 * as opted in, but anybody who reaches the port may send any review, so its namespace is looked at:
 *
 * | what is known                                      | opted in                                  |
 * |----------------------------------------------------|-------------------------------------------|
 * | the cache of the watch has it                      | yes                                       |
 * | a live read of the last second found it was not    | no                                        |
 * | a live read, done within `leftMs`                  | what it finds, also put into the cache    |
 * | a live read that fails, or is not done in time     | yes: the API server's own choice stands   |
 * | too many reads wait: none is begun                 | yes, the same                             |
 *
 * A "yes" of the last two rows is harmless where the review is forged: the answer changes nothing,
 * and without the cache knowing the namespace nothing is asked of the controller. A read that was
 * begun is finished, for the next review, however little time this one had. The bounds are those of
 * the API server's patience: forged names cost it 20 reads a second.
 */
export function createIsOptedIn(options: {
  index: PullSecretIndex
  store: Pick<SecretStore, 'readNamespace'>
}): IsOptedIn {
  const { index, store } = options
  const queue = new PQueue({
    concurrency: mostReads,
    interval: 1000,
    intervalCap: readsPerSecond,
    timeout: longestReadMs,
  })
  const notOptedIn = new LRUCache<string, true>({ max: mostRemembered, ttl: rememberMs })
  const reads = new Map<string, Promise<boolean>>()

  async function read(name: string): Promise<boolean> {
    try {
      const namespace = await queue.add(() => store.readNamespace(name))
      if (namespace !== undefined) index.namespaces.upsert(namespace)
      if (namespace !== undefined && readNamespace(namespace) !== undefined) return true
      notOptedIn.set(name, true)
      return false
    } catch {
      return true
    } finally {
      reads.delete(name)
    }
  }
  return async (namespace, leftMs) => {
    if (index.namespaces.get(namespace) !== undefined) return true
    if (notOptedIn.has(namespace)) return false
    let reading = reads.get(namespace)
    if (reading === undefined) {
      if (queue.size >= mostWaiting) return true
      reading = read(namespace)
      reads.set(namespace, reading)
    }
    return trueUnlessInTime(reading, leftMs)
  }
}

async function trueUnlessInTime(reading: Promise<boolean>, ms: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>()
  const timer = setTimeout(() => resolve(true), ms)
  try {
    return await Promise.race([reading, late])
  } finally {
    clearTimeout(timer)
  }
}

import { setTimeout as sleep } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import PQueue from 'p-queue'
import type { PullSecretIndex } from './pull-secret-index.ts'
import type { SecretStore } from './secret-store.ts'

export type IsOptedIn = (namespace: string, leftMs: number) => Promise<boolean>

/** A namespace that turned out not to be opted in is not read again for this long. */
const rememberMs = 1000
/** Whoever can reach the port can name any namespace: the API server is not asked without bounds. */
const mostReads = 10

/**
 * Whether a namespace is opted in: by the index, or by a live read of a namespace that the watch
 * has not told of (its label and its first pod often come together). What the read finds goes into
 * the index. Where it fails, or is not done within `leftMs`, the API server's own choice to ask us
 * stands: true.
 */
export function createIsOptedIn(options: {
  index: PullSecretIndex
  store: Pick<SecretStore, 'readNamespace'>
}): IsOptedIn {
  const { index, store } = options
  const queue = new PQueue({ concurrency: mostReads })
  const reads = new LRUCache<string, { optedIn: boolean }>({
    max: 10_000,
    ttl: rememberMs,
    fetchMethod: async name => {
      const namespace = await queue.add(() => store.readNamespace(name))
      if (namespace === undefined) return { optedIn: false }
      index.namespaces.upsert(namespace)
      return { optedIn: index.readNamespace(namespace) !== undefined }
    },
  })
  return async (namespace, leftMs) => {
    if (index.namespaces.get(namespace) !== undefined) return true
    try {
      const read = reads.fetch(namespace)
      const late = sleep(Math.max(0, leftMs), { optedIn: true }, { ref: false })
      return (await Promise.race([read, late]))?.optedIn ?? false
    } catch {
      return true
    }
  }
}

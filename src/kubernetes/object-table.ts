import { LRUCache } from 'lru-cache'

/** The part of a Kubernetes object that every kind has. */
export interface KubernetesObject {
  metadata?: { name?: string; namespace?: string; resourceVersion?: string }
}

export interface ObjectTable<T, V> {
  get(key: string): V | undefined
  keys(): MapIterator<string>
  /** The whole set, as a list of this version has it: what is not in it and not newer is gone. */
  replace(items: T[], listVersion: string): void
  upsert(item: T): void
  remove(item: T): void
}

/**
 * The newest state of objects that arrive by more than one road (a watch, and the answers to our
 * own writes), so possibly out of order: an older resourceVersion never replaces a newer one, nor
 * brings back what was removed later. Resource versions of one kind can be compared as whole
 * numbers (kubernetes/enhancements KEP-5504).
 *
 * `read` keeps what is needed of an object; undefined: this one is not kept.
 */
export function createObjectTable<T extends KubernetesObject, V>(options: {
  key(item: T): string
  read(item: T): V | undefined
  changed?(key: string, before: V | undefined, after: V | undefined): void
}): ObjectTable<T, V> {
  const rows = new Map<string, { value: V; version: bigint }>()
  const removed = new LRUCache<string, { version: bigint }>({ max: 1000 })

  const keep = (key: string, version: bigint, value: V | undefined) => {
    if (value !== undefined) {
      rows.set(key, { value, version })
      return
    }
    rows.delete(key)
    removed.set(key, { version })
  }
  const set = (key: string, version: bigint, value: V | undefined) => {
    const before = rows.get(key)
    if (version < (before?.version ?? removed.get(key)?.version ?? 0n)) return
    if (value !== undefined && version === before?.version) return
    keep(key, version, value)
    if (before !== undefined || value !== undefined) options.changed?.(key, before?.value, value)
  }
  return {
    get: key => rows.get(key)?.value,
    keys: () => rows.keys(),
    upsert: item => set(options.key(item), versionOf(item), options.read(item)),
    remove: item => set(options.key(item), versionOf(item), undefined),
    replace: (items, listVersion) => {
      const present = new Set(items.map(item => options.key(item)))
      const version = versionOf({ metadata: { resourceVersion: listVersion } })
      for (const key of rows.keys()) if (!present.has(key)) set(key, version, undefined)
      for (const item of items) set(options.key(item), versionOf(item), options.read(item))
    },
  }
}

function versionOf(item: KubernetesObject): bigint {
  const version = item.metadata?.resourceVersion ?? ''
  return /^\d+$/.test(version) ? BigInt(version) : 0n
}

import { LRUCache } from 'lru-cache'
import type { Replacement } from './list-pages.ts'

/** The part of a Kubernetes object that every kind has. */
interface KubernetesObject {
  metadata?: { name?: string; namespace?: string; resourceVersion?: string }
}

export interface ObjectTable<T, V> {
  get(key: string): V | undefined
  keys(): IterableIterator<string>
  /**
   * The whole set in the version of a list: each row that is not newer gets the state in the list, or
   * is removed. Each object is reduced to its row when it arrives.
   */
  replace(): Replacement<T>
  upsert(item: T): void
  remove(item: T): void
}

/**
 * The newest state of objects that arrive from more than one source (a watch, and the answers to our
 * own writes), possibly out of order: an older resourceVersion never replaces a newer one, and does
 * not restore an object that was removed later. Resource versions of one kind can be compared as
 * whole numbers (kubernetes/enhancements KEP-5504).
 *
 * `read` returns the parts to store; undefined: the object is not stored.
 */
export function createObjectTable<T extends KubernetesObject, V>(options: {
  key(item: T): string
  read(item: T): V | undefined
  changed?(key: string, before: V | undefined, after: V | undefined): void
}): ObjectTable<T, V> {
  const state: State<V> = { ...options, rows: new Map(), removed: new LRUCache({ max: 1000 }) }
  const { key, read } = options
  return {
    get: name => state.rows.get(name)?.value,
    keys: () => state.rows.keys(),
    upsert: item => set(state, key(item), versionOf(item), read(item)),
    remove: item => set(state, key(item), versionOf(item), undefined),
    replace: () => {
      const listed = new Map<string, Row<V>>()
      return {
        add: item => {
          const value = read(item)
          if (value !== undefined) listed.set(key(item), { value, version: versionOf(item) })
        },
        complete: (listVersion, anew) => {
          const version = versionOf({ metadata: { resourceVersion: listVersion } })
          if (anew) state.removed.clear()
          complete(state, listed, known => anew || known.version <= version)
        },
      }
    },
  }
}

interface Row<V> {
  value: V
  version: bigint
}

interface State<V> {
  rows: Map<string, Row<V>>
  removed: LRUCache<string, { version: bigint }>
  changed?(key: string, before: V | undefined, after: V | undefined): void
}

function set<V>(state: State<V>, key: string, version: bigint, value: V | undefined): void {
  const { rows, removed } = state
  const before = rows.get(key)
  if (version < (before?.version ?? removed.get(key)?.version ?? 0n)) return
  if (value !== undefined && version === before?.version) return
  if (value !== undefined) rows.set(key, { value, version })
  else {
    rows.delete(key)
    removed.set(key, { version })
  }
  if (before !== undefined || value !== undefined) state.changed?.(key, before?.value, value)
}

/** `decides`: the list is not older than this row, or this removal. */
function complete<V>(
  state: State<V>,
  listed: Map<string, Row<V>>,
  decides: (known: { version: bigint }) => boolean,
): void {
  const { rows, removed } = state
  for (const [key, row] of rows) {
    if (!listed.has(key) && decides(row)) drop(state, key, row)
  }
  for (const [key, row] of listed) {
    const known = rows.get(key) ?? removed.get(key)
    if (known === undefined || known.version <= row.version || decides(known)) take(state, key, row)
  }
}

function drop<V>({ rows, changed }: State<V>, key: string, row: Row<V>): void {
  rows.delete(key)
  changed?.(key, row.value, undefined)
}

function take<V>({ rows, changed }: State<V>, key: string, row: Row<V>): void {
  const before = rows.get(key)
  rows.set(key, row)
  if (row.version !== before?.version) changed?.(key, before?.value, row.value)
}

function versionOf(item: KubernetesObject): bigint {
  const version = item.metadata?.resourceVersion ?? ''
  return /^\d+$/.test(version) ? BigInt(version) : 0n
}

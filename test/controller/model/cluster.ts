import type { V1Namespace, V1Secret } from '@kubernetes/client-node'
import { KubernetesError } from '../../../src/kubernetes/client.ts'
import type { PullSecretIndex } from '../../../src/pull-secret/cache.ts'
import {
  type PullSecretRules,
  readCredential,
  readPullSecret,
} from '../../../src/pull-secret/pull-secret.ts'
import type { SecretStore } from '../../../src/pull-secret/store.ts'
import type { Owner, VirtualTime } from './virtual-time.ts'

export const registryHost = 'registry.d.example.com'
const optIn = 'pullpass.io/inject'

export interface ApiFaults {
  /** The request fails and changes nothing; or it is carried out, and the answer is lost. */
  fails: number
  lost: number
  watchLagMs: number
}

/** A process that cannot reach the Lease does not lead: the part of the faults that concerns it. */
const leaseFails = 0.2

export const noApiFaults: ApiFaults = { fails: 0, lost: 0, watchLagMs: 0 }

type Stored = V1Secret & { metadata: { name: string; namespace: string; resourceVersion: string } }
type StoredNamespace = V1Namespace & { metadata: { name: string; uid: string } }

type Change =
  | { kind: 'namespace'; object: V1Namespace; gone: boolean }
  | { kind: 'secret'; object: V1Secret; gone: boolean }

/** What etcd holds; objects are never changed in place, so that a copy is a snapshot. */
export interface Snapshot {
  namespaces: Map<string, StoredNamespace>
  secrets: Map<string, Stored>
  notes: Map<string, string>
  /** Secrets whose data pullpass wrote last. */
  managed: Set<string>
}

export interface ModelCluster {
  name: string
  faults: ApiFaults
  state: Snapshot
  /** Since when a namespace has been opted in and its Secret has held its present token. */
  heldSince(namespace: string, secretName: string): number
  /** As people and other tools do it. */
  putNamespace(name: string, labels: Record<string, string>, organization?: string): void
  deleteNamespace(name: string): void
  putSecret(namespace: string, secret: V1Secret): void
  deleteSecret(namespace: string, name: string): void
  snapshot(): Snapshot
  /** Versions go back, so each watch must start again. */
  restore(snapshot: Snapshot): void
  store(rules: PullSecretRules, onRemove: (namespace: string) => void): SecretStore
  /** Fills the index, then keeps it up to date until the owner ends. */
  watch(index: PullSecretIndex, secretName: string, owner: Owner): void
  note(annotation: string): {
    read(): Promise<string | undefined>
    write(text: string): Promise<void>
  }
}

export function createModelCluster(
  name: string,
  time: VirtualTime,
  random: () => number,
  start: Snapshot = {
    namespaces: new Map(),
    secrets: new Map(),
    notes: new Map(),
    managed: new Set(),
  },
): ModelCluster {
  let version = Math.max(
    1000,
    ...[...start.namespaces.values(), ...start.secrets.values()].map(versionOf),
  )
  let watchers: ((change: Change) => void)[] = []
  const since = new Map<string, { held: string; at: number }>()
  const notify = (change: Change) => {
    for (const watcher of watchers) watcher(change)
  }
  const call = createCall(() => cluster.faults, time, random)
  const cluster: ModelCluster = {
    name,
    faults: noApiFaults,
    state: start,
    heldSince: (namespace, secretName) => {
      const held = heldIn(cluster.state, namespace, secretName)
      const known = since.get(`${namespace}/${secretName}`)
      return held === undefined || known?.held !== held ? time.now() : known.at
    },
    putNamespace: (name, labels, organization) => {
      const uid = cluster.state.namespaces.get(name)?.metadata.uid ?? `uid-${++version}`
      const annotations = organization && { 'pullpass.io/organization': organization }
      setNamespace({
        metadata: {
          name,
          uid,
          labels,
          annotations: annotations || {},
          resourceVersion: `${++version}`,
        },
      })
    },
    deleteNamespace: name => {
      const found = cluster.state.namespaces.get(name)
      if (found === undefined || found.metadata.deletionTimestamp !== undefined) return
      const deletionTimestamp = new Date(time.now())
      setNamespace({
        metadata: { ...found.metadata, deletionTimestamp, resourceVersion: `${++version}` },
      })
      finishDeletion(name)
    },
    putSecret: (namespace, secret) => {
      if (isEnding(namespace)) return
      write(namespace, secret, false)
    },
    deleteSecret: (namespace, name) => {
      const found = cluster.state.secrets.get(`${namespace}/${name}`)
      if (found === undefined) return
      cluster.state.secrets.delete(`${namespace}/${name}`)
      const metadata = { ...found.metadata, resourceVersion: `${++version}` }
      remember()
      notify({ kind: 'secret', object: { ...found, metadata }, gone: true })
    },
    snapshot: () => copyOf(cluster.state),
    restore: snapshot => {
      watchers = []
      cluster.state = copyOf(snapshot)
      remember()
      for (const name of cluster.state.namespaces.keys()) finishDeletion(name)
    },
    store: (rules, onRemove) => createStore({ cluster, call, write, rules, onRemove }),
    watch: (index, secretName, owner) => {
      const { namespaces, secrets } = cluster.state
      const namespaceRows = index.namespaces.replace()
      for (const each of namespaces.values()) if (isLabelled(each)) namespaceRows.add(each)
      namespaceRows.complete(`${version}`, true)
      const secretRows = index.secrets.replace()
      for (const each of secrets.values()) {
        if (each.metadata.name === secretName) secretRows.add(each)
      }
      secretRows.complete(`${version}`, true)
      let last = time.now()
      watchers.push(change => {
        if (change.kind === 'secret' && change.object.metadata?.name !== secretName) return
        last = Math.max(last, time.now() + cluster.faults.watchLagMs + 1 + random() * 30)
        time.after(last - time.now(), () => deliver(change, index), owner)
      })
    },
    note: annotation => ({
      read: () => call(() => cluster.state.notes.get(annotation), leaseFails),
      write: text => call(() => void cluster.state.notes.set(annotation, text), leaseFails),
    }),
  }

  function setNamespace(object: StoredNamespace): void {
    cluster.state.namespaces.set(object.metadata.name, object)
    remember()
    notify({ kind: 'namespace', object, gone: false })
  }

  /** The contents of a namespace that is being deleted go first, also those that etcd was restored to. */
  function finishDeletion(name: string): void {
    const found = cluster.state.namespaces.get(name)
    if (found?.metadata.deletionTimestamp === undefined) return
    const isSame = () => cluster.state.namespaces.get(name) === found
    time.after(500 + random() * 3000, () => {
      if (isSame()) deleteContents(name)
    })
    time.after(4000 + random() * 4000, () => {
      if (!isSame()) return
      deleteContents(name)
      cluster.state.namespaces.delete(name)
      remember()
      const metadata = { ...found.metadata, resourceVersion: `${++version}` }
      notify({ kind: 'namespace', object: { ...found, metadata }, gone: true })
    })
  }

  function deleteContents(namespace: string): void {
    for (const { metadata } of [...cluster.state.secrets.values()]) {
      if (metadata.namespace === namespace) cluster.deleteSecret(namespace, metadata.name)
    }
  }

  function isEnding(namespace: string): boolean {
    const found = cluster.state.namespaces.get(namespace)
    return found === undefined || found.metadata.deletionTimestamp !== undefined
  }

  function write(namespace: string, secret: V1Secret, byPullpass: boolean): V1Secret {
    const key = `${namespace}/${secret.metadata?.name}`
    const before = cluster.state.secrets.get(key)
    const uid = before?.metadata.uid ?? `uid-${version + 1}`
    const metadata = {
      ...secret.metadata,
      name: secret.metadata?.name ?? '',
      namespace,
      uid,
      resourceVersion: `${++version}`,
    }
    const stored: Stored = { ...secret, metadata }
    cluster.state.secrets.set(key, stored)
    if (byPullpass) cluster.state.managed.add(key)
    else if (dataOf(before) !== dataOf(stored)) cluster.state.managed.delete(key)
    remember()
    notify({ kind: 'secret', object: stored, gone: false })
    return stored
  }

  /** What each namespace holds, where it is opted in, and since when. */
  function remember(): void {
    const keys = new Set([...since.keys(), ...cluster.state.secrets.keys()])
    for (const key of keys) {
      const [namespace = '', secretName = ''] = key.split('/')
      const held = heldIn(cluster.state, namespace, secretName)
      if (held === undefined) since.delete(key)
      else if (since.get(key)?.held !== held) since.set(key, { held, at: time.now() })
    }
  }

  remember()
  for (const name of start.namespaces.keys()) finishDeletion(name)
  return cluster
}

type Call = <T>(work: () => T, share?: number) => Promise<T>

/** `share`: the part of the faults that concerns the call. */
function createCall(faultsNow: () => ApiFaults, time: VirtualTime, random: () => number): Call {
  const latency = () => (random() < 0.03 ? 100 + random() * 3000 : 1 + random() * 10)
  const answerOf = <T>(work: () => T, share: number): T => {
    const { fails, lost } = faultsNow()
    const happens = (part: number) => part > 0 && random() < share * part
    if (happens(fails)) throw unavailable()
    const result = work()
    if (happens(lost)) throw unavailable()
    return result
  }
  return (work, share = 1) => {
    const { promise, resolve, reject } = Promise.withResolvers<ReturnType<typeof work>>()
    const owner = time.owner()
    time.after(latency(), () => {
      try {
        const result = answerOf(work, share)
        time.after(latency(), () => resolve(result), owner)
      } catch (error) {
        time.after(latency(), () => reject(error), owner)
      }
    })
    return promise
  }
}

function createStore(of: {
  cluster: ModelCluster
  call: Call
  write: (namespace: string, secret: V1Secret, byPullpass: boolean) => V1Secret
  rules: PullSecretRules
  onRemove: (namespace: string) => void
}): SecretStore {
  const { cluster, call, write, rules, onRemove } = of
  const find = (namespace: string) => cluster.state.secrets.get(`${namespace}/${rules.secretName}`)
  return {
    readNamespace: name => call(() => cluster.state.namespaces.get(name)),
    read: namespace => call(() => find(namespace)),
    apply: (secret, over) =>
      call(() => {
        const namespace = secret.metadata?.namespace ?? ''
        refuse(cluster.state, secret, over)
        const immutable = find(namespace)?.immutable === true
        return write(namespace, immutable ? { ...secret, immutable } : secret, true)
      }),
    check: (secret, over) => call(() => refuse(cluster.state, secret, over)),
    remove: ({ namespace, uid, resourceVersion }) =>
      call(() => {
        const found = find(namespace)
        if (found === undefined) return
        const { metadata } = found
        if (metadata.uid !== uid || metadata.resourceVersion !== resourceVersion) throw conflict()
        onRemove(namespace)
        cluster.deleteSecret(namespace, rules.secretName)
      }),
  }
}

type Over = { uid: string; resourceVersion: string; ours: boolean } | undefined

/** As the API server answers a server-side apply. */
function refuse({ namespaces, secrets, managed }: Snapshot, secret: V1Secret, over: Over): void {
  const { namespace = '', name } = secret.metadata ?? {}
  const key = `${namespace}/${name}`
  const found = secrets.get(key)
  const home = namespaces.get(namespace)
  if (home === undefined) throw answer(404)
  if (found !== undefined) {
    refuseChange(found, secret, over, managed.has(key))
    return
  }
  if (over !== undefined) throw conflict()
  if (home.metadata.deletionTimestamp !== undefined) throw answer(403, 'NamespaceTerminating')
}

function refuseChange(found: Stored, secret: V1Secret, over: Over, isManaged: boolean): void {
  const { uid, resourceVersion } = found.metadata
  const isSeen =
    over === undefined || (over.uid === uid && over.resourceVersion === resourceVersion)
  if (!isSeen) throw conflict()
  if (dataOf(found) === dataOf(secret)) return
  if (!isManaged && over?.ours !== true) throw answer(409, 'FieldManagerConflict')
  if (found.immutable) throw answer(422)
}

function deliver({ kind, object, gone }: Change, index: PullSecretIndex): void {
  if (kind === 'secret') {
    if (gone) index.secrets.remove(object)
    else index.secrets.upsert(object)
  } else if (gone || !isLabelled(object)) index.namespaces.remove(object as V1Namespace)
  else index.namespaces.upsert(object as V1Namespace)
}

function isLabelled({ metadata }: V1Namespace): boolean {
  return metadata?.labels?.[optIn] !== undefined
}

export function isOptedIn(state: Snapshot, name: string): boolean {
  const metadata = state.namespaces.get(name)?.metadata
  return metadata?.labels?.[optIn] === 'enabled' && metadata.deletionTimestamp === undefined
}

/** The token text that an opted-in namespace holds in a Secret of ours. */
export function heldIn(state: Snapshot, namespace: string, secretName: string): string | undefined {
  const secret = state.secrets.get(`${namespace}/${secretName}`)
  if (secret === undefined || !isOptedIn(state, namespace)) return undefined
  const { ours, text } = readSecret(secret)
  return ours ? text : undefined
}

/** Objects never change, so each is read once. */
const readSecrets = new WeakMap<V1Secret, { ours: boolean; text: string | undefined }>()

export function readSecret(secret: V1Secret): { ours: boolean; text: string | undefined } {
  const known = readSecrets.get(secret)
  if (known !== undefined) return known
  const rules = { secretName: secret.metadata?.name ?? '', registryHost }
  const read = { ours: readPullSecret(secret, rules).ours, text: readCredential(secret, rules) }
  readSecrets.set(secret, read)
  return read
}

function versionOf({ metadata }: V1Namespace | V1Secret): number {
  return Number(metadata?.resourceVersion)
}

function dataOf(secret: V1Secret | undefined): string {
  return JSON.stringify(secret?.data)
}

export function copyOf(state: Snapshot): Snapshot {
  return {
    namespaces: new Map(state.namespaces),
    secrets: new Map(state.secrets),
    notes: new Map(state.notes),
    managed: new Set(state.managed),
  }
}

function answer(status: number, cause?: string): KubernetesError {
  const causes = cause === undefined ? [] : [cause]
  return new KubernetesError(`cannot apply Secret: HTTP ${status}`, { status, causes })
}

function conflict(): KubernetesError {
  return answer(409)
}

function unavailable(): KubernetesError {
  return new KubernetesError('cannot reach the API server')
}

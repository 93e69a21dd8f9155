import { tokenHash } from '../jwt.ts'
import { type Described, readDescription } from './description.ts'
import type { ListedToken, MintedToken } from './issuer.ts'
import { createMarkTable, type Marks, type MarkTable } from './marks.ts'

/** A token that is ours by its description, or that a Secret of ours holds. */
export interface InventoryToken {
  /** Empty for a mint whose text does not show its id, until a list shows the token. */
  id: string
  /** SHA-256 of the text in hex; undefined: the list gives no texts. */
  hash: string | undefined
  description: string
  /** Ours: the namespace in the description. Undefined: the token of another cluster or system. */
  namespace: string | undefined
  /** From the description. */
  mintedAt: Date | undefined
  expiresAt: Date | undefined
  revoked: boolean
  readOnly: boolean
  organization: string
  /** Number of the list of this term that showed it last; undefined: minted by us since. */
  seenIn: number | undefined
  /** Complete lists in a row that showed it, up to the last one. */
  seenInARow: number
  /** Minted by this process, in this term or not shown by a list before it. */
  mintedByUs: boolean
  /** Revoked by this process: never adopted again, whatever a list shows. */
  revokedByUs: boolean
}

export function isLive(
  token: { revoked: boolean; readOnly: boolean; expiresAt: Date | undefined },
  now: Date,
): boolean {
  const { revoked, readOnly, expiresAt } = token
  return !revoked && readOnly && (expiresAt === undefined || expiresAt > now)
}

/** The tokens that Secrets of ours hold. */
export interface Holds {
  hashes: Set<string>
  ids: Set<string>
}

/** A list that is being read. It counts for nothing before it is complete. */
interface Reading {
  row(token: ListedToken): void
  complete(): void
}

/** The inventory of one organization; see Inventory for its rules. */
export interface OrganizationTokens {
  lists(): number
  read(holds: Holds, begunAt: Date): Reading
  /** The environment cannot list: all that this process minted is known, from earlier terms too. */
  unsupported(): void
  minted(description: string, token: MintedToken, hash: string): void
  revoked(id: string): void
  /** Takes over what this process did in an earlier term. */
  remember(former: OrganizationTokens): void
  done(): Done
  ofNamespace(namespace: string): InventoryToken[]
  namespaces(): Iterable<string>
  find(token: { hash: string; id: string | undefined }): InventoryToken | undefined
  marks(): Marks
}

/** What this process did. */
interface Done {
  /** Mints that no list has shown yet, by id or hash. */
  minted: Map<string, { token: InventoryToken; at: Date }>
  /** Times of revocations, by id. */
  revoked: Map<string, Date>
}

/** A list may show an older state: a mint is missing, or a revocation, for so long at most. */
const mintSettlesMs = 60_000
const revocationSettlesMs = 600_000
const mostRemembered = 20_000

interface State {
  cluster: string
  organization: string
  now: () => Date
  lists: number
  rows: Map<string, InventoryToken>
  byHash: Map<string, InventoryToken>
  byNamespace: Map<string, InventoryToken[]>
  marks: MarkTable
  done: Done
}

export function createOrganizationTokens(
  { now }: { now: () => Date },
  { organization, cluster }: { organization: string; cluster: string },
): OrganizationTokens {
  const state: State = {
    cluster,
    organization,
    now,
    lists: 0,
    rows: new Map(),
    byHash: new Map(),
    byNamespace: new Map(),
    marks: createMarkTable(),
    done: { minted: new Map(), revoked: new Map() },
  }
  return {
    lists: () => state.lists,
    read: (holds, begunAt) => read(state, holds, begunAt),
    unsupported: () => {
      for (const [key, { token }] of state.done.minted) {
        if (!state.rows.has(key)) add(state, token)
      }
    },
    minted: (description, token, hash) => minted(state, description, token, hash),
    revoked: id => revoked(state, id),
    remember: former => {
      state.done = former.done()
    },
    done: () => state.done,
    ofNamespace: namespace => [...(state.byNamespace.get(namespace) ?? [])],
    namespaces: () => namespacesWithLive(state),
    find: token => find(state, token),
    marks: state.marks.current,
  }
}

function* namespacesWithLive({ byNamespace, now }: State): Iterable<string> {
  const time = now()
  for (const [namespace, tokens] of byNamespace) {
    if (tokens.some(token => isLive(token, time))) yield namespace
  }
}

/** An id is anybody's to write into a token's text: it counts only where there is no hash. */
function find(
  { rows, byHash }: State,
  { hash, id }: { hash: string; id: string | undefined },
): InventoryToken | undefined {
  const byId = id === undefined ? undefined : rows.get(id)
  return byHash.get(hash) ?? (byId?.hash === undefined ? byId : undefined)
}

function keyOf({ id, hash }: { id: string; hash: string | undefined }): string {
  return id === '' ? `#${hash}` : id
}

function add(state: State, token: InventoryToken): void {
  const key = keyOf(token)
  const former = state.rows.get(key)
  state.rows.set(key, token)
  if (token.hash !== undefined) state.byHash.set(token.hash, token)
  if (token.namespace === undefined) return
  const others = (state.byNamespace.get(token.namespace) ?? []).filter(each => each !== former)
  state.byNamespace.set(token.namespace, [...others, token])
}

function minted(state: State, description: string, token: MintedToken, hash: string): void {
  const described = readDescription(state.cluster, description)
  if (described === undefined) return
  const { id = '', expiresAt } = token
  // An environment may give the same token again for the same description.
  state.done.revoked.delete(id)
  if ('mark' in described) {
    state.marks.minted(described.mark, id)
    return
  }
  const row: InventoryToken = {
    id,
    hash,
    description,
    namespace: described.namespace,
    mintedAt: described.mintedAt,
    expiresAt,
    revoked: false,
    readOnly: true,
    organization: state.organization,
    seenIn: undefined,
    seenInARow: 0,
    mintedByUs: true,
    revokedByUs: false,
  }
  remember(state.done.minted, keyOf(row), { token: row, at: state.now() })
  add(state, row)
}

/** The oldest entries of a full map make room. */
function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key)
  map.set(key, value)
  for (const oldest of map.keys()) {
    if (map.size <= mostRemembered) break
    map.delete(oldest)
  }
}

function revoked({ done, rows, marks, now }: State, id: string): void {
  remember(done.revoked, id, now())
  done.minted.delete(id)
  const row = rows.get(id)
  if (row !== undefined) {
    row.revoked = true
    row.revokedByUs = true
  }
  marks.revoked(id)
}

function read(state: State, holds: Holds, begunAt: Date): Reading {
  const staged: InventoryToken[] = []
  const marks = new Map<string, string>()
  return {
    row: token => {
      const described = readDescription(state.cluster, token.description)
      if (described !== undefined && 'mark' in described) {
        if (isLive(token, begunAt)) marks.set(described.mark, token.id)
        return
      }
      const hash = hashOf(token)
      if (described === undefined && !isHeld(token, hash, holds)) return
      staged.push(listedRow(state, token, described, hash))
    },
    complete: () => {
      state.lists += 1
      replaceRows(state, staged, begunAt)
      for (const [nonce, id] of marks) if (state.done.revoked.has(id)) marks.delete(nonce)
      state.marks.replace(marks)
    },
  }
}

function hashOf({ text }: ListedToken): string | undefined {
  return text === undefined ? undefined : tokenHash(text)
}

function isHeld({ id }: ListedToken, hash: string | undefined, holds: Holds): boolean {
  return holds.ids.has(id) || (hash !== undefined && holds.hashes.has(hash))
}

function listedRow(
  state: State,
  token: ListedToken,
  described: Exclude<Described, { mark: string }>,
  hash: string | undefined,
): InventoryToken {
  const known = state.rows.get(token.id) ?? state.byHash.get(hash ?? '')
  const { id, expiresAt, revoked, readOnly } = token
  const wasShown = known?.seenIn !== undefined && known.seenIn === state.lists
  return {
    // Equal texts are shared with the row before it, so that two lists at once cost little.
    id: known?.id === id ? known.id : id,
    hash: known?.hash === hash ? known?.hash : (hash ?? known?.hash),
    description: known?.description === token.description ? known.description : token.description,
    namespace: described?.namespace,
    mintedAt: described?.mintedAt,
    expiresAt,
    revoked,
    readOnly,
    organization: state.organization,
    seenIn: state.lists + 1,
    seenInARow: wasShown ? known.seenInARow + 1 : 1,
    mintedByUs: known?.mintedByUs ?? false,
    revokedByUs: false,
  }
}

function replaceRows(state: State, staged: InventoryToken[], begunAt: Date): void {
  const { rows: former, done } = state
  state.rows = new Map()
  state.byHash = new Map()
  state.byNamespace = new Map()
  for (const row of staged) {
    row.mintedByUs ||= done.minted.has(row.id)
    add(state, withRevocation(row, done, begunAt))
  }
  for (const [key, { token, at }] of done.minted) {
    const isShown = state.rows.has(key) || find(state, { hash: token.hash ?? '', id: undefined })
    const isYoung = begunAt.getTime() < at.getTime() + mintSettlesMs
    if (isShown || !isYoung) done.minted.delete(key)
    else if (former.get(key) === token) add(state, token)
  }
}

function withRevocation(row: InventoryToken, { revoked }: Done, begunAt: Date): InventoryToken {
  const at = revoked.get(row.id)
  if (at === undefined) return row
  row.revokedByUs = true
  row.revoked ||= begunAt.getTime() < at.getTime() + revocationSettlesMs
  return row
}

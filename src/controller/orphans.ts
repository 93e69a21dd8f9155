import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import { clip } from '../failure.ts'
import type { Inventory, InventoryToken } from '../issuer/inventory.ts'
import { TokenError } from '../issuer/issuer.ts'
import type { OptedInNamespace, PullSecretIndex } from '../pull-secret/cache.ts'
import {
  type PullSecret,
  type PullSecretRules,
  readPullSecret,
} from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'
import type { Step } from './plan.ts'
import { type RevocationReason, revocationReason, type Situation } from './revocation.ts'

interface Dependencies {
  index: PullSecretIndex
  store: SecretStore
  issuer: { revoke(organization: string, id: string, signal: AbortSignal): Promise<void> }
  inventory: Inventory
  /** Nobody else acts under our identity in its organization. */
  mayRevoke: (token: InventoryToken) => boolean
  /** Throws unless this process leads: called right before each revocation. */
  assertLeading: () => void
  now: () => Date
  logger: Logger
}

interface Settings {
  rules: PullSecretRules
  rotateGraceMs: number
}

/** What a namespace needs, and the row of the token in its Secret. */
export type Look = (
  namespace: string,
  state: OptedInNamespace | undefined,
  secret: PullSecret | undefined,
) => { step: Step; row: InventoryToken | undefined }

export interface Orphans {
  /** By what is in memory, a token of the namespace can be revoked. */
  pending(namespace: string): boolean
  /** Milliseconds until the limit of revocations allows another one. */
  pausedMs(): number
  /** Every namespace of ours that a list shows a live token of. */
  namespaces(): Iterable<string>
  /**
   * Revokes what `revocationReason` says, by a live read of namespace and Secret. Resolves to the
   * number of tokens. A revocation that fails is logged, and tried again after the next list.
   *
   * @throws KubernetesError, or what `assertLeading` throws.
   */
  collect(namespace: string, signal: AbortSignal): Promise<number>
}

interface State extends Dependencies {
  settings: Settings
  organizations: () => Iterable<string>
  look: Look
  /** The first look at a namespace that did not exist, by organization and namespace. */
  missing: LRUCache<string, { lists: number; at: Date }>
  /** The list after which a token that could not be revoked is tried again, by organization and id. */
  failed: LRUCache<string, number>
  /** The limit of revocations is reached until then. */
  pausedUntil: Date
}

/** Where there are no lists, this much time stands for one. */
const instead = 60_000

export function createOrphans(
  dependencies: Dependencies,
  settings: Settings,
  of: { organizations: () => Iterable<string>; look: Look },
): Orphans {
  const { organizations, look } = of
  const state: State = {
    ...dependencies,
    settings,
    organizations,
    look,
    missing: new LRUCache({ max: 20_000 }),
    failed: new LRUCache({ max: 20_000 }),
    pausedUntil: new Date(0),
  }
  return {
    pending: namespace => pending(state, namespace),
    pausedMs: () => Math.max(0, state.pausedUntil.getTime() - state.now().getTime()),
    namespaces: () => new Set([...organizations()].flatMap(each => namespacesIn(state, each))),
    collect: (namespace, signal) => collect(state, namespace, signal),
  }
}

function namespacesIn({ inventory }: State, organization: string): string[] {
  return [...inventory.organization(organization).namespaces()]
}

function pending(state: State, namespace: string): boolean {
  const { index, inventory, missing } = state
  const known = index.namespaces.get(namespace)
  const secret = index.secrets.get(namespace)
  const isNew = ({ organization }: InventoryToken) => {
    const first = missing.get(`${organization}/${namespace}`)
    const { lists, unsupported } = inventory.organization(organization)
    return first === undefined || unsupported || first.lists < lists
  }
  const found = { name: namespace, known, secret, exists: true }
  return revocable(state, found).some(({ token }) => isNew(token))
}

async function collect(state: State, namespace: string, signal: AbortSignal): Promise<number> {
  if (!pending(state, namespace)) return 0
  let count = 0
  for (const each of revocable(state, await readLive(state, namespace))) {
    if (await revoke(state, namespace, each, signal)) count += 1
  }
  return count
}

/** A namespace with its Secret. */
interface Read {
  name: string
  /** Undefined: it is not opted in. */
  known: OptedInNamespace | undefined
  secret: PullSecret | undefined
  exists: boolean
}

async function readLive(state: State, name: string): Promise<Read> {
  const { index, store, settings, missing } = state
  const live = await store.readNamespace(name)
  if (live === undefined) return { name, known: undefined, secret: undefined, exists: false }
  index.namespaces.upsert(live)
  for (const each of state.organizations()) missing.delete(`${each}/${name}`)
  const found = await store.read(name)
  if (found !== undefined) index.secrets.upsert(found)
  const secret = found && readPullSecret(found, settings.rules)
  return { name, known: index.readNamespace(live), secret, exists: true }
}

/** The tokens of a namespace that can be revoked, each with the reason. */
function revocable(
  state: State,
  { name, known, secret, exists }: Read,
): { token: InventoryToken; reason: RevocationReason }[] {
  const { inventory, organizations, look, mayRevoke, now, settings } = state
  if (state.pausedUntil > now()) return []
  const rows = [...organizations()]
    .flatMap(each => inventory.organization(each).ofNamespace(name))
    .filter(token => token.id !== '' && mayRevoke(token) && !hasFailed(state, token))
  if (rows.length === 0) return []
  const { step, row: own } = look(name, known, secret)
  return rows.flatMap(token => {
    const namespace: Situation['namespace'] = exists
      ? (known ?? 'not_opted_in')
      : whenMissing(state, name, token)
    const { rotateGraceMs } = settings
    const about = { namespace, secret, own, step, now: now(), rotateGraceMs }
    const reason = revocationReason(token, about, each => inventory.organization(each))
    return reason === undefined ? [] : [{ token, reason }]
  })
}

/** `'gone'` when the namespace was missing before the last list too. */
function whenMissing(
  { missing, inventory, now }: State,
  namespace: string,
  { organization }: InventoryToken,
): 'missing' | 'gone' {
  const key = `${organization}/${namespace}`
  const { lists, unsupported } = inventory.organization(organization)
  const first = missing.get(key) ?? { lists, at: now() }
  missing.set(key, first)
  const isLater = unsupported && now().getTime() - first.at.getTime() >= instead
  return lists > first.lists || isLater ? 'gone' : 'missing'
}

/** The Secret of another opted-in namespace holds it: a copy, which gets a token of its own first. */
function isHeld({ index }: State, own: string, { id, hash }: InventoryToken): boolean {
  for (const name of index.namespaces.keys()) {
    const token = name === own ? undefined : index.secrets.get(name)?.token
    if (token !== undefined && (token.hash === hash || token.id === id)) return true
  }
  return false
}

/** Since the last list, or for a minute. */
function hasFailed({ failed, inventory }: State, { organization, id }: InventoryToken): boolean {
  return failed.get(`${organization}/${id}`) === inventory.organization(organization).lists
}

async function revoke(
  state: State,
  namespace: string,
  { token, reason }: { token: InventoryToken; reason: RevocationReason },
  signal: AbortSignal,
): Promise<boolean> {
  const { issuer, inventory, failed, logger, now, assertLeading } = state
  const { organization, id } = token
  if (state.pausedUntil > now() || isHeld(state, namespace, token)) return false
  assertLeading()
  try {
    await issuer.revoke(organization, id, signal)
    inventory.revoked(organization, id)
    logger.info({ namespace, organization, token: clip(id), reason }, 'token revoked')
    return true
  } catch (error) {
    if (!(error instanceof TokenError) || signal.aborted) throw error
    const { code, retryAfterMs = instead } = error
    if (code === 'revoke_limit') state.pausedUntil = new Date(now().getTime() + retryAfterMs)
    else {
      const { lists } = inventory.organization(organization)
      failed.set(`${organization}/${id}`, lists, { ttl: instead })
      logger.warn({ namespace, organization, token: clip(id), code }, 'cannot revoke a token')
    }
    return false
  }
}

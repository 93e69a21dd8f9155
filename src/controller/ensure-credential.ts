import { LRUCache } from 'lru-cache'
import type { GuardedIssuer } from '../issuer/guarded-issuer.ts'
import {
  type Inventory,
  type InventoryToken,
  isLive,
  tokenDescription,
} from '../issuer/inventory.ts'
import { TokenError } from '../issuer/issuer.ts'
import { tokenHash } from '../jwt.ts'
import type { Budgets } from './budgets.ts'
import { mostFailures } from './lists.ts'
import type { OrganizationsInUse } from './organizations.ts'
import { ageAt } from './plan.ts'
import type { CredentialChecks } from './verify.ts'

/** A token to write into the Secret of a namespace. */
export interface Obtained {
  token: { text: string; id: string | undefined; expiresAt: Date | undefined }
  /** Undefined: a token of the first version, whose description has no time. */
  mintedAt: Date | undefined
  adopted: boolean
}

interface Wish {
  namespace: string
  organization: string
  /** The hash of the token that is replaced. */
  except: string | undefined
}

export interface Credentials {
  /** Adopts a live token of the namespace, else mints one. */
  obtain(wish: Wish, signal: AbortSignal): Promise<Obtained>
  /** Milliseconds until `obtain` can do without waiting for the mint limit. */
  availableIn(wish: Wish): number
  /** The token is in its Secret. */
  written(token: { text: string }): void
  /** The answer to a mint was lost: no other is minted before a list shows what came of it. */
  isUncertain(namespace: string): boolean
}

interface Dependencies {
  issuer: GuardedIssuer
  inventory: Inventory
  organizationsInUse: OrganizationsInUse
  checks: CredentialChecks
  budgets: Budgets
  /** Throws unless this process leads: called right before each mint. */
  assertLeading: () => void
  /** A namespace can go on. */
  wake: (namespace: string) => void
  now: () => Date
}

interface Settings {
  /** What our descriptions begin with. */
  cluster: string
  rotateAfterMs: number | undefined
}

interface State extends Dependencies {
  settings: Settings
  /** Texts of tokens that were minted and are not in a Secret yet, by hash. */
  unwritten: LRUCache<string, string>
  uncertain: Set<string>
}

/** A token that lives this much longer is worth adopting. */
const adoptableMs = 10 * 60_000

/**
 * Where the tokens for Secrets come from. The next try continues from any interruption: a token
 * that was minted and not written is found in the inventory by its description, and adopted.
 *
 * @throws TokenError, KubernetesError, TooManyChanges, or what `assertLeading` throws.
 */
export function createCredentials(dependencies: Dependencies, settings: Settings): Credentials {
  const state: State = {
    ...dependencies,
    settings,
    unwritten: new LRUCache({ max: 1000 }),
    uncertain: new Set(),
  }
  return {
    obtain: async (wish, signal) => (await adopt(state, wish, signal)) ?? mint(state, wish, signal),
    availableIn: wish =>
      adoptable(state, wish).length > 0 ? 0 : dependencies.issuer.mintsAvailableIn(),
    written: ({ text }) => void state.unwritten.delete(tokenHash(text)),
    isUncertain: namespace => state.uncertain.has(namespace),
  }
}

/**
 * Tokens of the namespace that its Secret could hold, the youngest first.
 *
 * | token                                              | adopted                            |
 * |----------------------------------------------------|------------------------------------|
 * | not live, or it expires within ten minutes         | no                                 |
 * | the one to replace, or revoked by us at any time   | no                                 |
 * | past the rotation age                              | no                                 |
 * | refused by the registry                            | no                                 |
 * | else                                               | if the registry accepts it, or     |
 * |                                                    | gives no answer                    |
 */
function adoptable(state: State, { namespace, organization, except }: Wish): InventoryToken[] {
  const { inventory, checks, now, settings } = state
  const { rotateAfterMs = Number.POSITIVE_INFINITY } = settings
  const neededUntil = new Date(now().getTime() + adoptableMs)
  const age = (token: InventoryToken) => ageAt(now(), token.mintedAt)
  return inventory
    .organization(organization)
    .ofNamespace(namespace)
    .filter(
      token =>
        isLive(token, neededUntil) &&
        !token.revokedByUs &&
        (token.hash === undefined || token.hash !== except) &&
        !checks.isRefused(token.hash) &&
        (age(token) < rotateAfterMs || rotateAfterMs === Number.POSITIVE_INFINITY),
    )
    .toSorted((a, b) => age(a) - age(b) || 0)
}

async function adopt(state: State, wish: Wish, signal: AbortSignal): Promise<Obtained | undefined> {
  for (const token of adoptable(state, wish)) {
    const text = state.unwritten.get(token.hash ?? '') ?? (await readText(state, token, signal))
    if (text === undefined || tokenHash(text) === wish.except) continue
    if (!state.unwritten.has(tokenHash(text)) && !(await isAccepted(state, text, signal))) continue
    const { id, expiresAt, mintedAt } = token
    return { token: { text, id: id || undefined, expiresAt }, mintedAt, adopted: true }
  }
  return undefined
}

/** The environment gives a text by id, or else in its list. */
async function readText(
  { issuer, inventory }: State,
  { organization, id, hash }: InventoryToken,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (id === '') return undefined
  let text = await issuer.text(organization, id, signal)
  if (text === 'gone') {
    inventory.revoked(organization, id)
    return undefined
  }
  if (text === undefined && hash !== undefined) {
    const keep = (row: { id: string; text: string | undefined }) => {
      if (row.id === id) text = row.text
    }
    await issuer.list(organization, keep, signal)
  }
  return text !== undefined && (hash ?? tokenHash(text)) === tokenHash(text) ? text : undefined
}

async function isAccepted(
  { issuer, checks }: State,
  text: string,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    const accepted = await issuer.accepts(text, signal)
    if (!accepted) checks.note(tokenHash(text), false)
    return accepted
  } catch (error) {
    // No answer says nothing against the token: the list counts.
    if (error instanceof TokenError) return true
    throw error
  }
}

async function mint(state: State, wish: Wish, signal: AbortSignal): Promise<Obtained> {
  const { issuer, budgets, inventory, organizationsInUse, settings, now } = state
  const { namespace, organization } = wish
  budgets.check(namespace, 'mint')
  await organizationsInUse.remember(organization)
  state.assertLeading()
  const mintedAt = now()
  const description = tokenDescription(settings.cluster, namespace, mintedAt)
  const request = { organization, description, permanent: true }
  const token = await issuer.mint(request, signal).catch(error => {
    if (isLost(error)) void lose(state, wish, signal)
    throw error
  })
  budgets.take(namespace, 'mint')
  inventory.minted(organization, description, token)
  state.unwritten.set(tokenHash(token.text), token.text)
  return { token, mintedAt, adopted: false }
}

/** The request was sent, and nobody knows whether a token was minted. */
function isLost(error: unknown): boolean {
  return error instanceof TokenError && error.kind === 'transient' && error.sent
}

/** A list shows it. Where there is none, the budget is all that keeps tokens from piling up. */
async function lose(state: State, wish: Wish, signal: AbortSignal): Promise<void> {
  const { inventory, budgets, uncertain, wake } = state
  const { namespace, organization } = wish
  const { unsupported } = inventory.organization(organization)
  if (!unsupported) uncertain.add(namespace)
  if (unsupported || !(await isListed(state, organization, signal))) budgets.take(namespace, 'mint')
  if (uncertain.delete(namespace)) wake(namespace)
}

/** Lists until a list is complete. False: the environment cannot list, or too many lists failed. */
async function isListed(
  { inventory }: State,
  organization: string,
  signal: AbortSignal,
): Promise<boolean> {
  for (;;) {
    try {
      await inventory.refresh(organization, signal)
      return !inventory.organization(organization).unsupported
    } catch {
      const { failed } = inventory.organization(organization)
      if (signal.aborted || failed >= mostFailures) return false
    }
  }
}

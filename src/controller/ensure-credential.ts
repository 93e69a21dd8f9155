import type { Logger } from 'pino'
import {
  chooseToken,
  type ListFor,
  type MintedTokens,
  type RevokeTokens,
  reportLeft,
  tokenDescription,
} from '../issuer/inventory.ts'
import type { ListedToken, RegistryToken, TokenIssuer } from '../issuer/issuer.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import {
  type PullSecret,
  type PullSecretContent,
  type PullSecretRules,
  pullSecretManifest,
  readPullSecret,
  withoutStrangers,
} from '../pull-secret/pull-secret.ts'
import { type SecretStore, writeFailure } from '../pull-secret/store.ts'
import type { Budgets } from './budgets.ts'
import type { OrganizationsInUse } from './organizations.ts'
import type { Step } from './plan.ts'

export interface StepOptions {
  index: PullSecretIndex
  store: SecretStore
  issuer: TokenIssuer
  list: ListFor
  minted: MintedTokens
  revokeTokens: RevokeTokens
  organizationsInUse: OrganizationsInUse
  budgets: Budgets
  /** UID of kube-system. */
  cluster: string
  rules: PullSecretRules
  revokeGraceMs: number
  now: () => Date
  /** Throws unless this process leads: asked right before every mint and write. */
  assertLeading: () => void
  logger: Logger
}

/** The step, with what it is about. `refusedToken` is one that the registry does not take any more. */
export interface Task {
  namespace: string
  organization: string
  step: Step
  refusedToken?: string | undefined
}

/** A token to write, and the live ones that nobody needs then. */
interface Obtained {
  token: RegistryToken
  adopted: boolean
  /** `'unknown'`: the environment cannot list. */
  redundant: ListedToken[] | 'unknown'
}

/** A token that still lives this much longer is worth adopting. */
const adoptableMs = 10 * 60_000

/**
 * Finds or mints a token for a namespace, writes it, and revokes what is then too many. Whatever
 * it is cut off after, the next look finds the rest to do: a token minted but not written is found
 * by its description and adopted.
 *
 * @throws TokenError, KubernetesError, TooManyChanges, or what `assertLeading` throws.
 */
export async function ensureCredential(
  task: Task,
  secret: PullSecret | undefined,
  options: StepOptions,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, organization, step } = task
  const replaced = step.do === 'renew' ? secret?.tokenId : undefined
  options.budgets.check(namespace, 'lookup')
  await checkWrite(task, secret, options)
  const obtained = await findOrMint(task, replaced, options, signal)
  const { token, adopted } = obtained
  const previousTokenId = task.refusedToken === undefined ? replaced : undefined
  const mintedAt = options.now()
  const content = { namespace, token, organization, mintedAt, previousTokenId }
  await writeSecret(content, secret, options).catch(async error => {
    if (isFinal(error) && !adopted) await revoke(task, token.id, options, signal)
    throw error
  })
  options.logger.info(
    { namespace, organization, token: token.id, because: reasonOf(step), adopted },
    adopted ? 'pull secret written with a token found' : 'pull secret written with a new token',
  )
  const keep = [token.id, previousTokenId]
  if (secret !== undefined && secret.organization !== organization) {
    await options.revokeTokens(secret, keep, signal)
  }
  if (obtained.redundant === 'unknown' && secret !== undefined) {
    const minted = options.minted.idsOf(namespace, organization)
    reportLeft(secret, [...minted, ...keep], options.logger)
  }
  await revokeSpare(task, { ...obtained, keep }, options, signal)
}

/** Stands for a token: about as long as one. */
const placeholder = { text: 'placeholder'.repeat(50), id: 'placeholder', expiresAt: undefined }

/** A permanent token is not minted where it is clear beforehand that it cannot be stored. */
async function checkWrite(
  { namespace, organization }: Task,
  over: PullSecret | undefined,
  { store, rules, now, assertLeading }: StepOptions,
): Promise<void> {
  assertLeading()
  const content = { namespace, token: placeholder, organization, mintedAt: now() }
  await store.check(pullSecretManifest(content, rules), over)
}

/** Mints only if no live token of this namespace can be gone on with. */
async function findOrMint(
  { namespace, organization, refusedToken }: Task,
  replaced: string | undefined,
  options: StepOptions,
  signal: AbortSignal,
): Promise<Obtained> {
  const { list, cluster, now } = options
  const description = tokenDescription(cluster, namespace)
  const listed = await list(namespace, organization, signal)
  const when = { now: now(), neededUntil: new Date(now().getTime() + adoptableMs) }
  const known = listed === 'unsupported' ? [] : listed
  const choice = chooseToken(known, description, when, [replaced, refusedToken])
  const redundant = listed === 'unsupported' ? ('unknown' as const) : choice.redundant
  if (choice.adopt !== undefined) return { token: choice.adopt, adopted: true, redundant }
  return { token: await mint(namespace, organization, options, signal), adopted: false, redundant }
}

async function mint(
  namespace: string,
  organization: string,
  options: StepOptions,
  signal: AbortSignal,
): Promise<RegistryToken> {
  const { issuer, budgets, minted, cluster, organizationsInUse, assertLeading } = options
  budgets.check(namespace, 'mint')
  await organizationsInUse.remember(organization)
  assertLeading()
  const token = await issuer.mint(organization, tokenDescription(cluster, namespace), signal)
  budgets.take(namespace, 'mint')
  if (token.id !== undefined) minted.add(namespace, organization, token.id)
  return identified(token, organization, issuer, signal)
}

/** A token whose text does not tell its id is looked up: without it, it could not be revoked. */
async function identified(
  token: RegistryToken,
  organization: string,
  issuer: TokenIssuer,
  signal: AbortSignal,
): Promise<RegistryToken> {
  const listed = token.id === undefined ? await issuer.list(organization, signal) : []
  const row = listed === 'unsupported' ? undefined : listed.find(({ text }) => text === token.text)
  return { ...token, id: token.id ?? row?.id }
}

/** The list that was read before is enough: no token was added to it but the new one. */
async function revokeSpare(
  task: Task,
  { redundant, keep }: Obtained & { keep: readonly (string | undefined)[] },
  options: StepOptions,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, organization } = task
  const ids =
    redundant === 'unknown'
      ? options.minted.idsOf(namespace, organization)
      : redundant.map(({ id }) => id)
  for (const id of ids.filter(id => !keep.includes(id))) await revoke(task, id, options, signal)
}

async function revoke(
  { namespace, organization }: Task,
  id: string | undefined,
  { issuer, minted, assertLeading }: StepOptions,
  signal: AbortSignal,
): Promise<void> {
  if (id === undefined) return
  assertLeading()
  await issuer.revoke(organization, id, signal)
  minted.remove(namespace, organization, id)
}

/** The token could not be written and never will: it is given back. */
function isFinal(error: unknown): boolean {
  return error instanceof KubernetesError && writeFailure(error) !== 'transient'
}

/**
 * Writes the Secret and remembers it at once: the watch may tell of it only later. An annotation of
 * ours that somebody else put there outlives the apply, and would be believed: it is emptied.
 */
export async function writeSecret(
  content: PullSecretContent,
  over: PullSecret | undefined,
  { store, index, rules, assertLeading }: StepOptions,
): Promise<void> {
  assertLeading()
  const manifest = pullSecretManifest(content, rules)
  let written = await store.apply(manifest, over)
  const cleared = withoutStrangers(manifest, written)
  if (cleared !== undefined) written = await store.apply(cleared, readPullSecret(written, rules))
  index.secrets.upsert(written)
}

function reasonOf(step: Step): string {
  return 'because' in step ? step.because : step.do
}

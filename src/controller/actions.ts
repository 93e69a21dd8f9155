import type { Logger } from 'pino'
import type { InventoryToken } from '../issuer/inventory.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import {
  type PullSecret,
  type PullSecretContent,
  type PullSecretRules,
  pullSecretManifest,
  readCredential,
  readPullSecret,
  withoutStrangers,
} from '../pull-secret/pull-secret.ts'
import { type SecretStore, writeFailure } from '../pull-secret/store.ts'
import type { Budgets } from './budgets.ts'
import type { Credentials, Obtained } from './ensure-credential.ts'
import { Contested } from './failures.ts'
import { lifeOf, type Step } from './plan.ts'

/** The step, with what it is about. */
export interface Task {
  namespace: string
  /** The one that the namespace should use. */
  organization: string
  secret: PullSecret | undefined
  /** Of the token in the Secret. */
  row: InventoryToken | undefined
  step: Step
}

/** Carries out one step of `plan()`. */
export type TakeStep = (task: Task, signal: AbortSignal) => Promise<void>

interface Dependencies {
  index: PullSecretIndex
  store: SecretStore
  credentials: Credentials
  /** A token that was adopted or minted is in the Secret. */
  written: (task: Task, obtained: Obtained) => void
  budgets: Budgets
  /** Throws unless this process leads: called right before each write. */
  assertLeading: () => void
  now: () => Date
  logger: Logger
}

interface Settings {
  rules: PullSecretRules
  revokeGraceMs: number
}

interface Context extends Dependencies {
  settings: Settings
}

/**
 * Each step counts against the budgets of its namespace, whether it succeeds or fails.
 *
 * @throws TokenError, KubernetesError, TooManyChanges, or what `assertLeading` throws.
 */
export function createTakeStep(dependencies: Dependencies, settings: Settings): TakeStep {
  const context = { ...dependencies, settings }
  const { budgets } = dependencies
  return async (task, signal) => {
    const { namespace } = task
    budgets.check(namespace, 'change')
    budgets.check(namespace, 'failed_write')
    try {
      await take(task, context, signal)
      budgets.take(namespace, 'change')
    } catch (error) {
      if (isOfNamespace(error)) budgets.take(namespace, 'failed_write')
      throw error
    }
  }
}

/** A change of the Secret, a quota or a policy made the write fail. */
function isOfNamespace(error: unknown): boolean {
  if (error instanceof Contested) return true
  if (!(error instanceof KubernetesError)) return false
  return ['not_managed', 'refused'].includes(writeFailure(error)) || error.status === 409
}

async function take(task: Task, context: Context, signal: AbortSignal): Promise<void> {
  const { step, secret } = task
  if (step.do === 'ensure' || step.do === 'renew') return ensure(task, context, signal)
  if (secret === undefined) return
  if (step.do === 'restore_label') return restoreLabel(task, secret, context)
  if (step.do === 'cancel_revocation') {
    return rewrite(task, secret, { revokeAt: undefined }, context)
  }
  if (step.do === 'forget_previous') {
    return rewrite(task, secret, { previousTokenId: undefined }, context)
  }
  // A watch can miss a change: nothing is taken away because of its word alone.
  if (await isOptedIn(task.namespace, context)) return
  if (step.do === 'delete') return remove(secret, context)
  const revokeAt = new Date(context.now().getTime() + context.settings.revokeGraceMs)
  return rewrite(task, secret, { revokeAt }, context)
}

/** Writes a token into the Secret: one that is there, or a new one. */
async function ensure(task: Task, context: Context, signal: AbortSignal): Promise<void> {
  const { namespace, organization, secret, row, step } = task
  const { credentials, logger } = context
  await checkWrite(task, context)
  const except = secret?.token?.hash
  const obtained = await credentials.obtain({ namespace, organization, except }, signal)
  const { token, mintedAt, adopted } = obtained
  const replaced = row?.id || secret?.token?.id
  const previousTokenId = step.do === 'renew' ? replaced : undefined
  const content = { namespace, token, organization, mintedAt, previousTokenId, revokeAt: undefined }
  await writeSecret(content, secret, context)
  context.written(task, obtained)
  const because = 'because' in step ? step.because : step.do
  logger.info(
    { namespace, organization, token: token.id, because, adopted },
    adopted ? 'pull secret written with a token found' : 'pull secret written with a new token',
  )
}

/** Stands for a token: about as long as one. */
const placeholder = { text: 'placeholder'.repeat(50), id: 'placeholder', expiresAt: undefined }

/** A permanent token is not minted where it is clear beforehand that it cannot be stored. */
async function checkWrite(
  { namespace, organization, secret }: Task,
  { store, settings, now, assertLeading }: Context,
): Promise<void> {
  assertLeading()
  const content = {
    namespace,
    token: placeholder,
    organization,
    mintedAt: now(),
    previousTokenId: undefined,
    revokeAt: undefined,
  }
  await store.check(pullSecretManifest(content, settings.rules), secret)
}

/** Without force: a Secret without our label may be somebody else's. */
async function restoreLabel(task: Task, secret: PullSecret, context: Context): Promise<void> {
  await rewrite(task, secret, {}, context).catch(error => {
    const isConflict = error instanceof KubernetesError && writeFailure(error) === 'not_managed'
    throw isConflict ? new Contested() : error
  })
}

interface Change {
  revokeAt?: Date | undefined
  previousTokenId?: undefined
}

/** Changes what a Secret says about its token, and keeps the token. */
async function rewrite(
  { namespace, organization, row }: Task,
  { token }: PullSecret,
  change: Change,
  context: Context,
): Promise<void> {
  const { store, settings, index } = context
  const live = await store.read(namespace)
  const text = live && readCredential(live, settings.rules)
  if (live === undefined || text === undefined) return
  const secret = readPullSecret(live, settings.rules)
  // It was changed meanwhile: the next plan is made for what it is now.
  if (secret.token?.hash !== token?.hash) return index.secrets.upsert(live)
  const { mintedAt, expiresAt } = lifeOf(secret, row)
  const content = {
    namespace,
    token: { text, id: row?.id || secret.token?.id, expiresAt },
    organization: row?.organization ?? secret.organization ?? organization,
    mintedAt,
    previousTokenId: secret.previousTokenId,
    revokeAt: secret.revokeAt,
    ...change,
  }
  await writeSecret(content, secret, context)
}

/**
 * Writes the Secret and remembers it at once: the watch may report it only later. An annotation of
 * ours that somebody else put there outlives the apply, and would be believed: it is emptied.
 */
async function writeSecret(
  content: PullSecretContent,
  over: PullSecret | undefined,
  { store, index, settings, assertLeading }: Context,
): Promise<void> {
  assertLeading()
  const manifest = pullSecretManifest(content, settings.rules)
  let written = await store.apply(manifest, over)
  const cleared = withoutStrangers(manifest, written)
  if (cleared !== undefined) {
    written = await store.apply(cleared, readPullSecret(written, settings.rules))
  }
  index.secrets.upsert(written)
}

async function isOptedIn(namespace: string, { store, index }: Context): Promise<boolean> {
  const live = await store.readNamespace(namespace)
  if (live !== undefined) index.namespaces.upsert(live)
  return live !== undefined && index.readNamespace(live) !== undefined
}

async function remove(secret: PullSecret, context: Context): Promise<void> {
  const { store, index, assertLeading, logger } = context
  const { namespace, resourceVersion } = secret
  assertLeading()
  await store.remove(secret)
  index.secrets.remove({ metadata: { namespace, resourceVersion } })
  logger.info({ namespace }, 'pull secret deleted: its namespace is not opted in')
}

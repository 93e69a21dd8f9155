import { KubernetesError } from '../kubernetes/client.ts'
import {
  type PullSecret,
  type PullSecretContent,
  readCredential,
  readPullSecret,
} from '../pull-secret/pull-secret.ts'
import { writeFailure } from '../pull-secret/store.ts'
import { ensureCredential, type StepOptions, type Task, writeSecret } from './ensure-credential.ts'
import type { Step } from './plan.ts'

/** Carries out one step of `plan()`. */
export type TakeStep = (task: Task, signal: AbortSignal) => Promise<void>

/**
 * Each step counts against the budgets of its namespace, whether it succeeds or fails.
 *
 * @throws TokenError, KubernetesError, TooManyChanges, or what `assertLeading` throws.
 */
export function createTakeStep(options: StepOptions): TakeStep {
  const { budgets } = options
  return async (task, signal) => {
    const { namespace } = task
    budgets.check(namespace, 'change')
    budgets.check(namespace, 'failed_write')
    try {
      await take(task, options, signal)
      budgets.take(namespace, 'change')
    } catch (error) {
      if (isOfNamespace(error)) budgets.take(namespace, 'failed_write')
      throw error
    }
  }
}

/** Whoever changes or owns the Secret made the write fail. */
function isOfNamespace(error: unknown): boolean {
  if (!(error instanceof KubernetesError)) return false
  return ['not_managed', 'refused'].includes(writeFailure(error)) || error.status === 409
}

async function take(task: Task, options: StepOptions, signal: AbortSignal): Promise<void> {
  const secret = options.index.secrets.get(task.namespace)
  const { step } = task
  if (step.do === 'ensure' || step.do === 'renew') {
    return ensureCredential(task, secret, options, signal)
  }
  if (secret === undefined) return
  if (step.do === 'cancel_revocation') return rewrite(secret, { revokeAt: undefined }, options)
  if (step.do === 'revoke_previous') return revokePrevious(secret, options, signal)
  return leave(step.do, secret, options, signal)
}

async function revokePrevious(
  secret: PullSecret,
  options: StepOptions,
  signal: AbortSignal,
): Promise<void> {
  await options.revokeTokens(secret, [secret.tokenId], signal)
  await rewrite(secret, { previousTokenId: undefined }, options)
}

/** A watch can miss or make up a change: nothing is taken away on its word alone. */
async function leave(
  deed: Step['do'],
  secret: PullSecret,
  options: StepOptions,
  signal: AbortSignal,
): Promise<void> {
  const live = await options.store.readNamespace(secret.namespace)
  if (live !== undefined) options.index.namespaces.upsert(live)
  if (live !== undefined && options.index.readNamespace(live) !== undefined) return
  if (deed === 'revoke') return revokeAndDelete(secret, options, signal)
  const revokeAt = new Date(options.now().getTime() + options.revokeGraceMs)
  if (deed === 'schedule_revocation') return rewrite(secret, { revokeAt }, options)
}

/** Changes what a Secret of ours says about its token, and keeps the token. */
async function rewrite(
  { namespace }: PullSecret,
  change: Pick<PullSecretContent, 'revokeAt'> | Pick<PullSecretContent, 'previousTokenId'>,
  options: StepOptions,
): Promise<void> {
  const live = await options.store.read(namespace)
  const text = live && readCredential(live, options.rules)
  if (live === undefined || text === undefined) return
  const secret = readPullSecret(live, options.rules)
  if (!secret.ours) return
  const { tokenId: id, expiresAt, mintedAt = options.now(), organization = '' } = secret
  const content = { ...secret, organization, mintedAt, token: { text, id, expiresAt }, ...change }
  await writeSecret(content, secret, options)
}

async function revokeAndDelete(
  secret: PullSecret,
  options: StepOptions,
  signal: AbortSignal,
): Promise<void> {
  // A damaged Secret says nothing about a token: what is left is found by its description.
  if (secret.wellFormed) await options.revokeTokens(secret, [], signal)
  options.assertLeading()
  await options.store.remove(secret)
  const { namespace, resourceVersion } = secret
  options.index.secrets.remove({ metadata: { namespace, resourceVersion } })
  options.logger.info({ namespace: secret.namespace }, 'pull secret removed, its token revoked')
}

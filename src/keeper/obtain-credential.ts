import type { Logger } from 'pino'
import { KubernetesError } from '../kubernetes/client.ts'
import type { Step } from '../pull-secret/plan.ts'
import {
  type PullSecret,
  type PullSecretContent,
  type PullSecretRules,
  pullSecretManifest,
  readPullSecret,
  withoutStrangers,
} from '../pull-secret/pull-secret.ts'
import type { PullSecretIndex } from '../pull-secret/pull-secret-index.ts'
import { type SecretStore, writeFailure } from '../pull-secret/secret-store.ts'
import { chooseToken, tokenDescription } from '../registry-token/own-tokens.ts'
import type { RegistryToken, TokenIssuer } from '../registry-token/registry-token.ts'
import type { RevokeTokens } from '../registry-token/revoke-tokens.ts'

export interface StepOptions {
  index: PullSecretIndex
  store: SecretStore
  issuer: TokenIssuer
  revokeTokens: RevokeTokens
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

/** A token that still lives this much longer is worth adopting. */
const adoptableMs = 10 * 60_000

/**
 * Finds or mints a token for a namespace, writes it, and revokes what is then too many. Whatever
 * it is cut off after, the next look finds the rest to do: a token minted but not written is found
 * by its description and adopted.
 *
 * @throws TokenError, KubernetesError, or what `assertLeading` throws.
 */
export async function obtainCredential(
  task: Task,
  secret: PullSecret | undefined,
  options: StepOptions,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, organization, step } = task
  const replaced = step.do === 'renew' ? secret?.tokenId : undefined
  const { token, adopted, spares } = await findOrMint(task, replaced, options, signal)
  const previousTokenId = task.refusedToken === undefined ? replaced : undefined
  const mintedAt = options.now()
  await writeSecret(
    { namespace, token, organization, mintedAt, previousTokenId },
    secret,
    options,
  ).catch(async error => {
    const kept = [secret?.tokenId, secret?.previousTokenId]
    const minted = { namespace, organization, tokenId: token.id }
    if (isFinal(error)) await options.revokeTokens(minted, kept, signal)
    throw error
  })
  options.logger.info(
    { namespace, organization, token: token.id, because: reasonOf(step), adopted },
    adopted ? 'pull secret written with a token found' : 'pull secret written with a new token',
  )
  const before = secret ?? { namespace, organization }
  const keep = [token.id, previousTokenId]
  if (before.organization !== organization) await options.revokeTokens(before, keep, signal)
  // A token whose id nobody knows could not be told from the spare ones.
  if (spares && token.id !== undefined)
    await options.revokeTokens({ ...before, organization }, keep, signal)
}

/** Mints only if no live token of this namespace can be gone on with. */
async function findOrMint(
  { namespace, organization, refusedToken }: Task,
  replaced: string | undefined,
  { issuer, cluster, now, assertLeading }: StepOptions,
  signal: AbortSignal,
): Promise<{ token: RegistryToken; adopted: boolean; spares: boolean }> {
  const description = tokenDescription(cluster, namespace)
  const listed = await issuer.list(organization, signal)
  const when = { now: now(), neededUntil: new Date(now().getTime() + adoptableMs) }
  const known = listed === 'unsupported' ? [] : listed
  const { adopt, spare } = chooseToken(known, description, when, [replaced, refusedToken])
  const spares = listed === 'unsupported' || spare.length > 0
  if (adopt !== undefined) return { token: adopt, adopted: true, spares }
  assertLeading()
  const token = await issuer.mint(organization, description, signal)
  return { token: await identified(token, organization, issuer, signal), adopted: false, spares }
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

import { LRUCache } from 'lru-cache'
import { isUsable, type PullSecretIndex } from './pull-secret-index.ts'

/** What admission needs of the keeper. */
export interface SecretKeeper {
  /** A pod waits for this namespace's Secret: it goes first. Nothing where another replica leads. */
  want(namespace: string): void
  /** Why the namespace has no Secret, as far as this replica knows; fit for people. */
  refusal(namespace: string): { message: string } | undefined
  /** Aborted as soon as a step for the namespace fails. */
  whenRefused(namespace: string): AbortSignal
}

/** Resolves to what is in the way of a pod's pull, in words for people; undefined: nothing is. */
export type SecretMissing = (
  of: { namespace: string; dryRun: boolean },
  leftMs: number,
) => Promise<string | undefined>

/** A namespace that was waited for in vain makes no other pod wait, for this long. */
const vainMs = 10_000

/**
 * Where the Secret is not there, asks the keeper for it and waits: at most `waitMs`, never beyond
 * what is left for the review, and no longer than there is hope. A dry run asks for nothing.
 */
export function createSecretMissing(options: {
  index: PullSecretIndex
  keeper: SecretKeeper
  waitMs: number
}): SecretMissing {
  const { index, keeper } = options
  const vain = new LRUCache<string, true>({ max: 10_000, ttl: vainMs })
  const reason = (namespace: string) => keeper.refusal(namespace)?.message
  async function appears(namespace: string, leftMs: number): Promise<boolean> {
    keeper.want(namespace)
    if (reason(namespace) !== undefined || vain.has(namespace)) return false
    const timeout = AbortSignal.timeout(Math.max(0, Math.min(options.waitMs, leftMs)))
    const until = AbortSignal.any([timeout, keeper.whenRefused(namespace)])
    if (await index.whenUsable(namespace, until)) return true
    vain.set(namespace, true)
    return false
  }
  return async ({ namespace, dryRun }, leftMs) => {
    const secret = index.secrets.get(namespace)
    if (isUsable(secret)) return secret?.ours ? undefined : 'it is not one that pullpass made'
    if (!dryRun && (await appears(namespace, leftMs))) return undefined
    return reason(namespace) ?? 'it does not exist yet'
  }
}

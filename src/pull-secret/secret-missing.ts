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
const mostVain = 1000
/** Reviews that wait at a time; each holds a connection. The others are answered at once. */
const mostWaiting = 200

/**
 * Where the Secret is not there, asks the keeper for it and waits: at most `waitMs`, never beyond
 * what is left for the review, and no longer than there is hope. A dry run asks for nothing. A
 * namespace that the cache does not know as opted in is asked for and waited for by nobody: a forged
 * review leaves nothing behind.
 */
export function createSecretMissing(options: {
  index: PullSecretIndex
  keeper: SecretKeeper
  waitMs: number
}): SecretMissing {
  const { index, keeper, waitMs } = options
  const vain = new LRUCache<string, true>({ max: mostVain, ttl: vainMs })
  const reason = (namespace: string) => keeper.refusal(namespace)?.message
  let waiting = 0
  async function appears(namespace: string, leftMs: number): Promise<boolean> {
    if (index.namespaces.get(namespace) === undefined) return false
    keeper.want(namespace)
    const isHopeless = reason(namespace) !== undefined || vain.has(namespace)
    if (isHopeless || waiting >= mostWaiting) return false
    waiting += 1
    const ms = Math.max(0, Math.floor(Math.min(waitMs, leftMs)))
    try {
      const end = { ms, sooner: keeper.whenRefused(namespace) }
      const isThere = await before(end, signal => index.whenUsable(namespace, signal))
      // A review in a hurry says nothing about how long the Secret takes.
      if (!isThere && ms >= waitMs) vain.set(namespace, true)
      return isThere
    } finally {
      waiting -= 1
    }
  }
  return async ({ namespace, dryRun }, leftMs) => {
    const secret = index.secrets.get(namespace)
    if (isUsable(secret)) return secret?.ours ? undefined : 'it is not one that pullpass made'
    if (!dryRun && (await appears(namespace, leftMs))) return undefined
    return reason(namespace) ?? 'it does not exist yet'
  }
}

/** Runs with a signal that ends after `ms`, or with `sooner`; timer and listener end with the run. */
async function before<T>(
  { ms, sooner }: { ms: number; sooner: AbortSignal },
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController()
  const end = () => controller.abort()
  const timer = setTimeout(end, ms)
  sooner.addEventListener('abort', end)
  if (sooner.aborted) end()
  try {
    return await run(controller.signal)
  } finally {
    clearTimeout(timer)
    sooner.removeEventListener('abort', end)
  }
}

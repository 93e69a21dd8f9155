import { KubernetesError } from '../kubernetes/client.ts'
import { type PullSecret, readPullSecret } from '../pull-secret/pull-secret.ts'
import { findStrayTokens } from './find-stray.ts'
import type { OrganizationsInUse } from './organizations-in-use.ts'
import { type TidyOptions, tidyTokens } from './tidy-tokens.ts'

/**
 * Takes back at once, without the grace, what was made for namespaces that are not opted in any
 * more: revokes their tokens, deletes their Secrets, and revokes tokens that no Secret names.
 * Namespaces that are opted in keep theirs. Resolves to what was done, by namespace.
 *
 * @throws TokenError, KubernetesError: what was done until then stays done.
 */
export async function cleanUp(
  options: TidyOptions & { organizationsInUse: OrganizationsInUse },
  signal: AbortSignal,
): Promise<string[]> {
  const done: string[] = []
  for (const namespace of [...options.index.names()]) {
    if (!(await takeBack(namespace, options, signal))) continue
    done.push(`${namespace}: token revoked, Secret deleted`)
  }
  for (const tokens of await findStrayTokens(options, signal)) {
    await tidyTokens(tokens, options, signal)
    done.push(`${tokens.namespace}: stray tokens revoked`)
  }
  return done
}

/** Secrets change while they are looked at: a leader beside us marks those of un-labelled namespaces. */
const mostTries = 5

/** False: there is nothing to take back. */
async function takeBack(
  namespace: string,
  options: TidyOptions,
  signal: AbortSignal,
  triesLeft = mostTries,
): Promise<boolean> {
  const secret = await needlessSecret(namespace, options)
  if (secret === undefined) return false
  await options.revokeTokens(secret, [], signal)
  try {
    await options.store.remove(secret)
    const { resourceVersion } = secret
    // Its tokens are looked for next, and the watch may report the removal only later.
    options.index.secrets.remove({ metadata: { namespace, resourceVersion } })
    return true
  } catch (error) {
    if (triesLeft === 0 || !isChanged(error)) throw error
    return takeBack(namespace, options, signal, triesLeft - 1)
  }
}

/** The Secret of a namespace as it is now, where it is ours and the namespace is not opted in. */
async function needlessSecret(
  namespace: string,
  { store, rules, index }: TidyOptions,
): Promise<PullSecret | undefined> {
  const live = await store.readNamespace(namespace)
  if (live !== undefined && index.readNamespace(live) !== undefined) return undefined
  const found = await store.read(namespace)
  const secret = found && readPullSecret(found, rules)
  return secret?.ours ? secret : undefined
}

function isChanged(error: unknown): boolean {
  return error instanceof KubernetesError && error.status === 409
}

import type { OrganizationRules } from '../pull-secret/organization.ts'
import type { PullSecret } from '../pull-secret/pull-secret.ts'
import { readNamespace } from '../pull-secret/pull-secret-index.ts'
import { findStrayTokens } from './find-stray.ts'
import { type TidyOptions, tidyTokens } from './tidy-tokens.ts'

/**
 * Takes back at once, without the grace, what was made for namespaces that are not opted in any
 * more: revokes their tokens, deletes their Secrets, and revokes tokens that no Secret names.
 * Namespaces that are opted in keep theirs. Resolves to what was done, by namespace.
 *
 * @throws TokenError, KubernetesError: what was done until then stays done.
 */
export async function cleanUp(
  options: TidyOptions & { organizations: OrganizationRules },
  signal: AbortSignal,
): Promise<string[]> {
  const { index, store } = options
  const done: string[] = []
  const secrets = [...index.names()].flatMap(name => index.secrets.get(name) ?? [])
  for (const secret of secrets.filter(({ ours }) => ours)) {
    if (await isOptedIn(secret, options)) continue
    await options.revokeTokens(secret, [], signal)
    await store.remove(secret)
    done.push(`${secret.namespace}: token revoked, Secret deleted`)
  }
  for (const tokens of await findStrayTokens(options, signal)) {
    await tidyTokens(tokens, options, signal)
    done.push(`${tokens.namespace}: stray tokens revoked`)
  }
  return done
}

async function isOptedIn(
  { namespace }: PullSecret,
  { store }: Pick<TidyOptions, 'store'>,
): Promise<boolean> {
  const live = await store.readNamespace(namespace)
  return live !== undefined && readNamespace(live) !== undefined
}

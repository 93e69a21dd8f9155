import type { Logger } from 'pino'
import type { OrganizationRules } from '../pull-secret/organization.ts'
import { type PullSecretRules, readPullSecret } from '../pull-secret/pull-secret.ts'
import { type PullSecretIndex, readNamespace } from '../pull-secret/pull-secret-index.ts'
import type { SecretStore } from '../pull-secret/secret-store.ts'
import { namespaceOf } from '../registry-token/own-tokens.ts'
import { type ListedToken, TokenError, type TokenIssuer } from '../registry-token/registry-token.ts'
import type { RevokeTokens, TokensOfNamespace } from '../registry-token/revoke-tokens.ts'

export interface TidyOptions {
  index: PullSecretIndex
  store: SecretStore
  issuer: TokenIssuer
  revokeTokens: RevokeTokens
  cluster: string
  rules: PullSecretRules
  logger: Logger
}

/**
 * Revokes what a namespace's tokens are too many. Reads namespace and Secret anew: a watch that
 * lies must not take a credential away.
 *
 * | namespace now                  | its Secret                  | live tokens that stay         |
 * |--------------------------------|-----------------------------|-------------------------------|
 * | opted in                       | absent, or ours but damaged | all: one of them gets adopted |
 * | any                            | ours                        | the ones that it names        |
 * | opted in                       | foreign                     | none: they are of no use      |
 * | not opted in, ending, or gone  | absent or foreign           | none                          |
 *
 * @throws TokenError, KubernetesError.
 */
export async function tidyTokens(
  of: TokensOfNamespace,
  options: TidyOptions,
  signal: AbortSignal,
): Promise<void> {
  const { index, store, rules } = options
  const live = await store.readNamespace(of.namespace)
  if (live !== undefined) index.namespaces.upsert(live)
  const namespace = live && readNamespace(live)
  const found = live && (await store.read(of.namespace))
  const secret = found && readPullSecret(found, rules)
  const wanting = namespace !== undefined && !namespace.terminating
  if (wanting && (secret === undefined || (secret.ours && !secret.wellFormed))) return
  const keep = secret?.ours ? [secret.tokenId, secret.previousTokenId] : []
  await options.revokeTokens(of, keep, signal)
}

/**
 * Looks through all tokens of the organizations in use for ones of this cluster that no Secret
 * names: left behind by a crash, by a lease lost in the middle of a mint, or by a namespace that
 * went while nobody looked. Changes nothing; what it names is to be tidied in turn.
 */
export async function findStrayTokens(
  options: Omit<TidyOptions, 'revokeTokens'> & { organizations: OrganizationRules },
  signal: AbortSignal,
): Promise<TokensOfNamespace[]> {
  const stray = new Map<string, TokensOfNamespace>()
  for (const organization of organizationsInUse(options)) {
    for (const token of await listOrNothing(organization, options, signal)) {
      const namespace = strayFrom(token, options)
      if (namespace !== undefined)
        stray.set(`${organization}/${namespace}`, { namespace, organization })
    }
  }
  return [...stray.values()]
}

/** The namespace of a live token of ours that its Secret does not name. */
function strayFrom(
  token: ListedToken,
  { index, cluster }: Pick<TidyOptions, 'index' | 'cluster'>,
): string | undefined {
  const namespace = token.revoked ? undefined : namespaceOf(cluster, token.description)
  const secret = namespace === undefined ? undefined : index.secrets.get(namespace)
  const named = secret?.ours && [secret.tokenId, secret.previousTokenId].includes(token.id)
  return named ? undefined : namespace
}

function organizationsInUse({
  index,
  organizations,
}: Pick<TidyOptions, 'index'> & { organizations: OrganizationRules }): Set<string> {
  return new Set([
    organizations.organization,
    ...Object.values(organizations.namespaceOrganizations),
    ...organizations.selectableOrganizations.map(({ organization }) => organization),
    ...[...index.names()].flatMap(name => index.secrets.get(name)?.organization ?? []),
  ])
}

/** One organization that cannot be looked through does not keep the others from it. */
async function listOrNothing(
  organization: string,
  { issuer, logger }: Pick<TidyOptions, 'issuer' | 'logger'>,
  signal: AbortSignal,
): Promise<ListedToken[]> {
  try {
    const tokens = await issuer.list(organization, signal)
    return tokens === 'unsupported' ? [] : tokens
  } catch (error) {
    if (!(error instanceof TokenError)) throw error
    logger.debug({ organization, code: error.code }, 'tokens could not be listed')
    return []
  }
}

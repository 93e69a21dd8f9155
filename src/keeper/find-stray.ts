import { namespaceOf } from '../registry-token/own-tokens.ts'
import { type ListedToken, TokenError } from '../registry-token/registry-token.ts'
import type { TokensOfNamespace } from '../registry-token/revoke-tokens.ts'
import type { OrganizationsInUse } from './organizations-in-use.ts'
import type { TidyOptions } from './tidy-tokens.ts'

type Options = Pick<TidyOptions, 'index' | 'issuer' | 'cluster' | 'logger'> & {
  organizationsInUse: OrganizationsInUse
}

export type FindStray = (signal: AbortSignal) => Promise<TokensOfNamespace[]>

/**
 * `findStrayTokens`, but of a list of namespaces that is empty after it was full nothing is
 * concluded: a watch that lies must not take a cluster's credentials away.
 */
export function createFindStray(options: Options): FindStray {
  let sawNamespaces = false
  let told = false
  return async signal => {
    const isEmpty = options.index.namespaces.keys().next().done === true
    sawNamespaces ||= !isEmpty
    if (!isEmpty || !sawNamespaces) {
      told = false
      return findStrayTokens(options, signal)
    }
    if (!told)
      options.logger.warn('no namespace is opted in any more, not looking for stray tokens')
    told = true
    return []
  }
}

/**
 * Looks through all tokens of the organizations in use for ones of this cluster that no Secret
 * names: left behind by a crash, by a lease lost in the middle of a mint, or by a namespace that
 * went while nobody looked. Changes nothing; what it names is to be tidied in turn.
 * An organization without any token of this cluster is forgotten.
 *
 * @throws KubernetesError where it cannot tell which organizations are in use.
 */
export async function findStrayTokens(
  options: Options,
  signal: AbortSignal,
): Promise<TokensOfNamespace[]> {
  const stray = new Map<string, TokensOfNamespace>()
  for (const organization of await options.organizationsInUse.all()) {
    const tokens = await listOrNothing(organization, options, signal)
    if (tokens?.every(token => liveFor(token, options) === undefined)) {
      await options.organizationsInUse.forget(organization)
    }
    for (const token of tokens ?? []) {
      const namespace = strayFrom(token, options)
      if (namespace !== undefined)
        stray.set(`${organization}/${namespace}`, { namespace, organization, confirmed: true })
    }
  }
  return [...stray.values()]
}

/** The namespace of a live token of ours that its Secret does not name. */
function strayFrom(
  token: ListedToken,
  { index, cluster }: Pick<TidyOptions, 'index' | 'cluster'>,
): string | undefined {
  const namespace = liveFor(token, { cluster })
  const secret = namespace === undefined ? undefined : index.secrets.get(namespace)
  const isLeaving = namespace !== undefined && index.namespaces.get(namespace) === undefined
  if (secret?.terminating && isLeaving) return namespace
  const named = [secret?.tokenId, secret?.previousTokenId].includes(token.id)
  return named ? undefined : namespace
}

function liveFor(token: ListedToken, { cluster }: Pick<TidyOptions, 'cluster'>) {
  return token.revoked ? undefined : namespaceOf(cluster, token.description)
}

/** One organization that cannot be looked through does not keep the others from it. */
async function listOrNothing(
  organization: string,
  { issuer, logger }: Pick<TidyOptions, 'issuer' | 'logger'>,
  signal: AbortSignal,
): Promise<ListedToken[] | undefined> {
  try {
    const tokens = await issuer.list(organization, signal)
    return tokens === 'unsupported' ? undefined : tokens
  } catch (error) {
    if (!(error instanceof TokenError)) throw error
    logger.debug({ organization, code: error.code }, 'tokens could not be listed')
    return undefined
  }
}

import { tokenDescription } from './own-tokens.ts'
import type { TokenIssuer } from './registry-token.ts'

/** Whose tokens; the ids are what the Secret's annotations said, for environments that cannot list. */
export interface TokensOfNamespace {
  namespace: string
  organization: string | undefined
  tokenId?: string | undefined
  previousTokenId?: string | undefined
}

export type RevokeTokens = (
  of: TokensOfNamespace,
  keep: readonly (string | undefined)[],
  signal: AbortSignal,
) => Promise<void>

/**
 * Revokes every live token of a namespace but those to keep. A token is taken for ours by its
 * description alone, exactly: an annotation is anybody's to edit. Only where the environment
 * cannot list, the ids noted on the Secret have to do.
 *
 * @throws TokenError, or what `assertLeading` throws.
 */
export function createRevokeTokens(options: {
  issuer: TokenIssuer
  cluster: string
  assertLeading: () => void
}): RevokeTokens {
  const { issuer, cluster, assertLeading } = options
  return async (of, keep, signal) => {
    const { namespace, organization } = of
    if (organization === undefined) return
    const listed = await issuer.list(organization, signal)
    const description = tokenDescription(cluster, namespace)
    const ids =
      listed === 'unsupported'
        ? [of.tokenId, of.previousTokenId].filter(id => id !== undefined)
        : listed
            .filter(token => token.description === description && !token.revoked)
            .map(({ id }) => id)
    for (const id of ids.filter(id => !keep.includes(id))) {
      assertLeading()
      await issuer.revoke(organization, id, signal)
    }
  }
}

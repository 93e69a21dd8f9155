import type { Logger } from 'pino'
import { type PullSecretRules, readPullSecret } from '../pull-secret/pull-secret.ts'
import { type PullSecretIndex, readNamespace } from '../pull-secret/pull-secret-index.ts'
import type { SecretStore } from '../pull-secret/secret-store.ts'
import type { TokenIssuer } from '../registry-token/registry-token.ts'
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

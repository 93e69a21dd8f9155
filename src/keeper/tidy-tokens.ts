import type { Logger } from 'pino'
import {
  type PullSecret,
  type PullSecretRules,
  readPullSecret,
} from '../pull-secret/pull-secret.ts'
import type { PullSecretIndex } from '../pull-secret/pull-secret-index.ts'
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
 * | any                            | ours, naming no token       | all: its own is among them    |
 * | any                            | there                       | the ones that it names        |
 * | not opted in, ending, or gone  | absent, or being deleted    | none                          |
 *
 * @throws TokenError, KubernetesError, TooManyChanges.
 */
export async function tidyTokens(
  of: TokensOfNamespace,
  options: TidyOptions,
  signal: AbortSignal,
): Promise<void> {
  const { index, store, rules } = options
  const live = await store.readNamespace(of.namespace)
  if (live !== undefined) index.namespaces.upsert(live)
  const namespace = live && index.readNamespace(live)
  const found = live && (await store.read(of.namespace))
  const secret = found && readPullSecret(found, rules)
  const wanting = namespace?.terminating === false
  if (wanting && isUnfinished(secret)) return
  const held = secret?.terminating && !wanting ? undefined : secret
  if (held?.ours && held.tokenId === undefined) return
  await options.revokeTokens(of, [held?.tokenId, held?.previousTokenId], signal)
}

/** The keeper has yet to write a credential, and may adopt any live token for it. */
function isUnfinished(secret: PullSecret | undefined): boolean {
  return secret === undefined || (secret.ours && !secret.wellFormed)
}

import type { Logger } from 'pino'
import type { RevokeTokens, TokensOfNamespace } from '../issuer/inventory.ts'
import { namespaceOf } from '../issuer/inventory.ts'
import { type ListedToken, TokenError, type TokenIssuer } from '../issuer/issuer.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import {
  type PullSecret,
  type PullSecretRules,
  readPullSecret,
} from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'
import type { OrganizationsInUse } from './organizations.ts'

type Options = Pick<CollectOptions, 'index' | 'issuer' | 'cluster' | 'logger'> & {
  organizationsInUse: OrganizationsInUse
}

export type FindOrphaned = (signal: AbortSignal) => Promise<TokensOfNamespace[]>

/**
 * `findOrphanedTokens`, but of a list of namespaces that is empty after it was full nothing is
 * concluded: a watch that lies must not take a cluster's credentials away.
 */
export function createFindOrphaned(options: Options): FindOrphaned {
  let sawNamespaces = false
  let told = false
  return async signal => {
    const isEmpty = options.index.namespaces.keys().next().done === true
    sawNamespaces ||= !isEmpty
    if (!isEmpty || !sawNamespaces) {
      told = false
      return findOrphanedTokens(options, signal)
    }
    if (!told)
      options.logger.warn('no namespace is opted in any more, not looking for orphaned tokens')
    told = true
    return []
  }
}

/**
 * Looks through all tokens of the organizations in use for ones of this cluster that no Secret
 * names: left behind by a crash, by a lease lost in the middle of a mint, or by a namespace that
 * went while nobody looked. Changes nothing; what it names is to be collected in turn.
 * An organization without any token of this cluster is forgotten.
 *
 * @throws KubernetesError where it cannot tell which organizations are in use.
 */
async function findOrphanedTokens(
  options: Options,
  signal: AbortSignal,
): Promise<TokensOfNamespace[]> {
  const orphaned = new Map<string, TokensOfNamespace>()
  for (const organization of await options.organizationsInUse.all()) {
    const tokens = await listOrNothing(organization, options, signal)
    if (tokens?.every(token => liveFor(token, options) === undefined)) {
      await options.organizationsInUse.forget(organization)
    }
    for (const token of tokens ?? []) {
      const namespace = orphanedFrom(token, options)
      if (namespace !== undefined)
        orphaned.set(`${organization}/${namespace}`, { namespace, organization, confirmed: true })
    }
  }
  return [...orphaned.values()]
}

/** The namespace of a live token of ours that its Secret does not name. */
function orphanedFrom(
  token: ListedToken,
  { index, cluster }: Pick<CollectOptions, 'index' | 'cluster'>,
): string | undefined {
  const namespace = liveFor(token, { cluster })
  const secret = namespace === undefined ? undefined : index.secrets.get(namespace)
  const isLeaving = namespace !== undefined && index.namespaces.get(namespace) === undefined
  if (secret?.terminating && isLeaving) return namespace
  const named = [secret?.tokenId, secret?.previousTokenId].includes(token.id)
  return named ? undefined : namespace
}

function liveFor(token: ListedToken, { cluster }: Pick<CollectOptions, 'cluster'>) {
  return token.revoked ? undefined : namespaceOf(cluster, token.description)
}

/** One organization that cannot be looked through does not keep the others from it. */
async function listOrNothing(
  organization: string,
  { issuer, logger }: Pick<CollectOptions, 'issuer' | 'logger'>,
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

interface CollectOptions {
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
export async function collectTokens(
  of: TokensOfNamespace,
  options: CollectOptions,
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

/** The controller has yet to write a credential, and may adopt any live token for it. */
function isUnfinished(secret: PullSecret | undefined): boolean {
  return secret === undefined || (secret.ours && !secret.wellFormed)
}

/**
 * Takes back at once, without the grace, what was made for namespaces that are not opted in any
 * more: revokes their tokens, deletes their Secrets, and revokes tokens that no Secret names.
 * Namespaces that are opted in keep theirs. Resolves to what was done, by namespace.
 *
 * @throws TokenError, KubernetesError: what was done until then stays done.
 */
export async function cleanUp(
  options: CollectOptions & { organizationsInUse: OrganizationsInUse },
  signal: AbortSignal,
): Promise<string[]> {
  const done: string[] = []
  for (const namespace of [...options.index.names()]) {
    if (!(await takeBack(namespace, options, signal))) continue
    done.push(`${namespace}: token revoked, Secret deleted`)
  }
  for (const tokens of await findOrphanedTokens(options, signal)) {
    await collectTokens(tokens, options, signal)
    done.push(`${tokens.namespace}: orphaned tokens revoked`)
  }
  return done
}

/** Secrets change while they are looked at: a leader beside us marks those of un-labelled namespaces. */
const mostTries = 5

/** False: there is nothing to take back. */
async function takeBack(
  namespace: string,
  options: CollectOptions,
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
  { store, rules, index }: CollectOptions,
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

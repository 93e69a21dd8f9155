import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import { clip } from '../failure.ts'
import type { ListedToken, TokenIssuer } from './issuer.ts'

const prefix = 'pullpass/'

/**
 * The description that marks a token as ours: `pullpass/<cluster>/<namespace>`. `cluster` is the
 * UID of kube-system, so that two clusters that share an organization leave each other alone.
 */
export function tokenDescription(cluster: string, namespace: string): string {
  return `${prefix}${cluster}/${namespace}`
}

/** The namespace that a token of this cluster was minted for; undefined: the token is not ours. */
export function namespaceOf(cluster: string, description: string): string | undefined {
  const start = `${prefix}${cluster}/`
  const namespace = description.startsWith(start) ? description.slice(start.length) : ''
  return /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(namespace) ? namespace : undefined
}

interface TokenChoice {
  /** The token to go on with; undefined: one has to be minted. */
  adopt: (ListedToken & { text: string }) | undefined
  /** Live tokens that nobody needs once the Secret holds the adopted (or a new) one. */
  redundant: ListedToken[]
}

/**
 * Chooses among the live tokens of one description.
 *
 * | token                                           | what becomes of it                          |
 * |-------------------------------------------------|---------------------------------------------|
 * | other description, or revoked                   | not looked at                               |
 * | expired                                         | not looked at: the environment removes it   |
 * | of write rights, or its text is not given       | redundant                                       |
 * | expires before `neededUntil`                    | redundant                                       |
 * | listed in `except` (about to be replaced)       | redundant, never adopted                        |
 * | else: the one that lives longest, then the last | adopted; all others redundant                   |
 */
export function chooseToken(
  tokens: ListedToken[],
  description: string,
  when: { now: Date; neededUntil: Date },
  except: readonly (string | undefined)[] = [],
): TokenChoice {
  const live = tokens.filter(
    token => token.description === description && !token.revoked && !isOver(token, when.now),
  )
  const usable = live.filter(
    (token): token is ListedToken & { text: string } =>
      token.readOnly &&
      Boolean(token.text) &&
      !isOver(token, when.neededUntil) &&
      !except.includes(token.id),
  )
  const adopt = usable.reduce<TokenChoice['adopt']>(
    (best, token) => (best === undefined || livesAsLong(token, best) ? token : best),
    undefined,
  )
  return { adopt, redundant: live.filter(token => token !== adopt) }
}

function isOver(token: ListedToken, at: Date): boolean {
  return token.expiresAt !== undefined && token.expiresAt <= at
}

function livesAsLong(token: ListedToken, other: ListedToken): boolean {
  const end = (each: ListedToken) => each.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY
  return end(token) >= end(other)
}

/** Whose tokens; the ids are what the Secret's annotations say, and are good for a report only. */
export interface TokensOfNamespace {
  namespace: string
  organization: string | undefined
  tokenId?: string | undefined
  previousTokenId?: string | undefined
  /** A list showed tokens of the namespace in this organization. */
  confirmed?: boolean
}

export type RevokeTokens = (
  of: TokensOfNamespace,
  keep: readonly (string | undefined)[],
  signal: AbortSignal,
) => Promise<void>

/** `TokenIssuer.list`, on behalf of one namespace: it counts against the namespace's budget. */
export type ListFor = (
  namespace: string,
  organization: string,
  signal: AbortSignal,
) => Promise<ListedToken[] | 'unsupported'>

/** The tokens that this process has minted, for environments that cannot list. */
export interface MintedTokens {
  add(namespace: string, organization: string, id: string): void
  idsOf(namespace: string, organization: string): readonly string[]
  remove(namespace: string, organization: string, id: string): void
}

const mostNamespaces = 20_000
const mostIds = 10

export function createMintedTokens(): MintedTokens {
  const ids = new LRUCache<string, string[]>({ max: mostNamespaces })
  const key = (namespace: string, organization: string) => `${namespace}/${organization}`
  const idsOf = (namespace: string, organization: string) =>
    ids.get(key(namespace, organization)) ?? []
  return {
    idsOf,
    add: (namespace, organization, id) => {
      const all = [...idsOf(namespace, organization), id].slice(-mostIds)
      ids.set(key(namespace, organization), all)
    },
    remove: (namespace, organization, id) => {
      const left = idsOf(namespace, organization).filter(each => each !== id)
      if (left.length === 0) ids.delete(key(namespace, organization))
      else ids.set(key(namespace, organization), left)
    },
  }
}

interface RevokeOptions {
  issuer: Pick<TokenIssuer, 'revoke'>
  list: ListFor
  minted: MintedTokens
  /** Whether tokens of the namespace can be in the organization: its Secret alone is not believed. */
  mayHold(namespace: string, organization: string): Promise<boolean>
  /** UID of kube-system. */
  cluster: string
  assertLeading: () => void
  logger: Logger
}

/**
 * Revokes the live tokens of a namespace but those to keep. Annotations of a Secret are anybody's to
 * write, so they name no token to revoke and no organization to ask.
 *
 * | organization                     | the environment can list | revoked                               |
 * |----------------------------------|--------------------------|---------------------------------------|
 * | not one that the namespace uses  |                          | nothing, and nothing is asked         |
 * | one that it uses or has used     | yes                      | tokens with exactly our description   |
 * | the same                         | no                       | tokens that this process minted for   |
 * |                                  |                          | it; others are reported               |
 *
 * @throws TokenError, KubernetesError, or what `list` and `assertLeading` throw.
 */
export function createRevokeTokens(options: RevokeOptions): RevokeTokens {
  const { issuer, minted, mayHold, assertLeading } = options
  return async (of, keep, signal) => {
    const { namespace, organization } = of
    if (organization === undefined) return
    if (!of.confirmed && !(await mayHold(namespace, organization))) return
    const ids = await findLive({ ...of, organization }, keep, options, signal)
    for (const id of ids.filter(id => !keep.includes(id))) {
      assertLeading()
      await issuer.revoke(organization, id, signal)
      minted.remove(namespace, organization, id)
    }
  }
}

async function findLive(
  of: TokensOfNamespace & { organization: string },
  keep: readonly (string | undefined)[],
  { list, minted, cluster, logger }: RevokeOptions,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { namespace, organization } = of
  const listed = await list(namespace, organization, signal)
  if (listed === 'unsupported') {
    const ids = minted.idsOf(namespace, organization)
    reportLeft(of, [...ids, ...keep], logger)
    return ids
  }
  const description = tokenDescription(cluster, namespace)
  return listed
    .filter(token => token.description === description && !token.revoked)
    .map(({ id }) => id)
}

/** Says which tokens of a Secret stay live until an administrator revokes them. */
export function reportLeft(
  { namespace, organization, tokenId, previousTokenId }: TokensOfNamespace,
  known: readonly (string | undefined)[],
  logger: Logger,
): void {
  const left = [tokenId, previousTokenId].filter(id => id !== undefined && !known.includes(id))
  if (left.length === 0) return
  logger.warn(
    { namespace, organization, tokens: left.map(id => clip(id ?? '')) },
    'tokens not revoked: the environment cannot list them, and another process minted them',
  )
}

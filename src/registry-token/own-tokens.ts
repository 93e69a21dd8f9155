import type { ListedToken } from './registry-token.ts'

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

export interface TokenChoice {
  /** The token to go on with; undefined: one has to be minted. */
  adopt: (ListedToken & { text: string }) | undefined
  /** Live tokens that nobody needs once the Secret holds the adopted (or a new) one. */
  spare: ListedToken[]
}

/**
 * Chooses among the live tokens of one description.
 *
 * | token                                           | what becomes of it                          |
 * |-------------------------------------------------|---------------------------------------------|
 * | other description, or revoked                   | not looked at                               |
 * | expired                                         | not looked at: the environment removes it   |
 * | of write rights, or its text is not given       | spare                                       |
 * | expires before `neededUntil`                    | spare                                       |
 * | listed in `except` (about to be replaced)       | spare, never adopted                        |
 * | else: the one that lives longest, then the last | adopted; all others spare                   |
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
  return { adopt, spare: live.filter(token => token !== adopt) }
}

function isOver(token: ListedToken, at: Date): boolean {
  return token.expiresAt !== undefined && token.expiresAt <= at
}

function livesAsLong(token: ListedToken, other: ListedToken): boolean {
  const end = (each: ListedToken) => each.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY
  return end(token) >= end(other)
}

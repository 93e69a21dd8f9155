import type { InventoryToken } from '../issuer/inventory.ts'
import type { OptedInNamespace } from '../pull-secret/cache.ts'
import type { PullSecret } from '../pull-secret/pull-secret.ts'

export type Step =
  | {
      do: 'nothing'
      because:
        | 'ready'
        | 'terminating'
        | 'not_opted_in'
        | 'not_managed'
        | 'immutable'
        | 'no_list'
        | 'another_goes_first'
        | 'revocation_scheduled'
        | 'revocation_suspended'
        | 'not_its_own'
    }
  /** Adopt or mint a token and write it. */
  | { do: 'ensure'; because: 'absent' | 'malformed' | 'dead' | 'other_organization' }
  /** The same, while the present token stays valid for a grace. */
  | { do: 'renew'; because: 'expiring' | 'old' }
  /** Write the Secret again as it is: it lost our label. */
  | { do: 'restore_label' }
  /** The token before this one is revoked: remove the annotation that names it. */
  | { do: 'forget_previous' }
  /** Note on the Secret when it is deleted; remove that note. */
  | { do: 'schedule_revocation' }
  | { do: 'cancel_revocation' }
  | { do: 'delete' }

/** What is known of the token in a Secret, apart from the Secret. */
export interface TokenKnowledge {
  /** Its row in the inventory of this term. */
  row: InventoryToken | undefined
  /** The registry refused it, later than a minute after it was minted. */
  refused: boolean
}

type Verdict = 'live' | 'dead' | 'unknown'

/**
 * Whether a namespace can go on with the token in its Secret. Only a list and the registry count,
 * never a label, an annotation or a clock of the Secret.
 *
 * | its row in the inventory                        | the registry | verdict |
 * |-------------------------------------------------|--------------|---------|
 * | revoked, expired, or of another description     | any answer   | dead    |
 * | live, or none                                   | refused it   | dead    |
 * | live: not revoked, not expired, read-only, ours | else         | live    |
 * | none, or with write access                      | else         | unknown |
 */
export function verdict(namespace: string, { row, refused }: TokenKnowledge, now: Date): Verdict {
  if (row !== undefined && (row.namespace !== namespace || isOver(row, now))) return 'dead'
  if (refused) return 'dead'
  return row?.readOnly ? 'live' : 'unknown'
}

/** Revoked or expired. */
export function isOver(row: InventoryToken, now: Date): boolean {
  return row.revoked || (row.expiresAt !== undefined && row.expiresAt <= now)
}

interface PlanRules {
  now: Date
  /** The organization that this namespace should use now. */
  organization: string
  /** A token may be adopted or minted: the list of this term is there, or it cannot be had. */
  listed: boolean
  /** A dead token may be replaced now: not too many are dead at once. */
  mayReplace: boolean
  /** Nobody else acts under our identity. */
  mayRevoke: boolean
  /** The token before this one is revoked, or its row is gone. */
  previousIsOver: boolean
  rotateAfterMs: number | undefined
}

/**
 * The one step that is missing between what is and what should be.
 *
 * | namespace    | Secret of our name                             | its token          | step                          |
 * |--------------|------------------------------------------------|--------------------|-------------------------------|
 * | ending       | any                                            |                    | nothing: terminating          |
 * | any          | being deleted                                  |                    | nothing: terminating          |
 * | opted in     | absent                                         |                    | ensure: absent                |
 * | opted in     | without our label                              | live               | restore_label                 |
 * | opted in     | without our label                              | else               | nothing: not_managed          |
 * | opted in     | ours                                           | none               | ensure: malformed             |
 * | opted in     | ours                                           | dead               | ensure: dead                  |
 * | opted in     | ours                                           | of another         | ensure: other_organization    |
 * |              |                                                | organization       |                               |
 * | opted in     | ours, revocation is scheduled                  | live or unknown    | cancel_revocation             |
 * | opted in     | ours                                           | past 2/3 of its    | renew: expiring               |
 * |              |                                                | life               |                               |
 * | opted in     | ours                                           | older than the     | renew: old                    |
 * |              |                                                | rotation age       |                               |
 * | opted in     | ours, names a previous token that is over      | live or unknown    | forget_previous               |
 * | opted in     | ours, else                                     | live or unknown    | nothing: ready                |
 * | not opted in | absent, or without our label                   |                    | nothing: not_opted_in         |
 * | not opted in | ours                                           | of no row of this  | nothing: not_its_own          |
 * |              |                                                | namespace          |                               |
 * | not opted in | ours, no revocation is scheduled               | its own            | schedule_revocation           |
 * | not opted in | ours, revocation is scheduled                  | its own            | nothing: revocation_scheduled |
 * | not opted in | ours, revocation is due                        | its own            | delete                        |
 *
 * Something else comes in the place of a step that is not possible yet:
 *
 * | step                                  | where                                  | instead                       |
 * |---------------------------------------|----------------------------------------|-------------------------------|
 * | ensure, renew, nothing: not_managed   | no list of this term is there          | nothing: no_list              |
 * | ensure, renew                         | the Secret is immutable                | nothing: immutable            |
 * | ensure: dead                          | too many are dead at once              | nothing: another_goes_first   |
 * | delete                                | another acts under our identity        | nothing: revocation_suspended |
 */
export function plan(
  namespace: OptedInNamespace | undefined,
  secret: PullSecret | undefined,
  token: TokenKnowledge,
  rules: PlanRules,
): Step {
  if (namespace?.terminating || secret?.terminating) return nothing('terminating')
  const step =
    namespace === undefined
      ? planLeaving(secret, token, rules)
      : planOptedIn(namespace.name, secret, token, rules)
  return possible(step, secret, rules)
}

function possible(step: Step, secret: PullSecret | undefined, rules: PlanRules): Step {
  if (step.do === 'delete' && !rules.mayRevoke) return nothing('revocation_suspended')
  const isReported = step.do === 'nothing' && step.because === 'not_managed'
  if (isReported && !rules.listed) return nothing('no_list')
  return step.do === 'ensure' || step.do === 'renew' ? possibleNow(step, secret, rules) : step
}

function possibleNow(
  step: Extract<Step, { do: 'ensure' | 'renew' }>,
  secret: PullSecret | undefined,
  { listed, mayReplace }: PlanRules,
): Step {
  if (!listed) return nothing('no_list')
  if (secret?.immutable) return nothing('immutable')
  return step.because === 'dead' && !mayReplace ? nothing('another_goes_first') : step
}

function planOptedIn(
  namespace: string,
  secret: PullSecret | undefined,
  token: TokenKnowledge,
  rules: PlanRules,
): Step {
  if (secret === undefined) return { do: 'ensure', because: 'absent' }
  const found = secret.token && verdict(namespace, token, rules.now)
  if (!secret.ours) return found === 'live' ? { do: 'restore_label' } : nothing('not_managed')
  if (found === undefined) return { do: 'ensure', because: 'malformed' }
  if (found === 'dead') return { do: 'ensure', because: 'dead' }
  // Where no list shows the token, the annotation is all there is.
  const organization = token.row?.organization ?? secret.organization
  if (organization !== rules.organization) return { do: 'ensure', because: 'other_organization' }
  if (secret.revokeAt !== undefined) return { do: 'cancel_revocation' }
  return planAgeing(secret, token.row, rules)
}

function planAgeing(
  secret: PullSecret,
  row: InventoryToken | undefined,
  { now, rotateAfterMs, previousIsOver }: PlanRules,
): Step {
  const { mintedAt, expiresAt } = lifeOf(secret, row)
  if (expiresAt !== undefined && now >= renewAt(mintedAt, expiresAt)) {
    return { do: 'renew', because: 'expiring' }
  }
  if (rotateAfterMs !== undefined && ageAt(now, mintedAt) >= rotateAfterMs) {
    return { do: 'renew', because: 'old' }
  }
  const isForgotten = secret.previousTokenId === undefined || !previousIsOver
  return isForgotten ? nothing('ready') : { do: 'forget_previous' }
}

function planLeaving(
  secret: PullSecret | undefined,
  { row }: TokenKnowledge,
  { now }: PlanRules,
): Step {
  if (!secret?.ours) return nothing('not_opted_in')
  if (row?.namespace !== secret.namespace) return nothing('not_its_own')
  if (secret.revokeAt === undefined) return { do: 'schedule_revocation' }
  return secret.revokeAt <= now ? { do: 'delete' } : nothing('revocation_scheduled')
}

function nothing(because: Extract<Step, { do: 'nothing' }>['because']): Step {
  return { do: 'nothing', because }
}

/** By its row; the annotations count only where no list shows the token. */
export function lifeOf(
  secret: PullSecret,
  row: InventoryToken | undefined,
): { mintedAt: Date | undefined; expiresAt: Date | undefined } {
  const { mintedAt, expiresAt } = row ?? secret
  return { mintedAt: mintedAt ?? secret.mintedAt, expiresAt }
}

/** One whose mint time is not known is older than any limit. */
export function ageAt(now: Date, mintedAt: Date | undefined): number {
  return now.getTime() - (mintedAt?.getTime() ?? Number.NEGATIVE_INFINITY)
}

/** 2/3 of the token's life; one whose beginning is not known is renewed at once. */
function renewAt(mintedAt: Date | undefined, expiresAt: Date): Date {
  const start = mintedAt?.getTime()
  return new Date(start === undefined ? 0 : start + (2 / 3) * (expiresAt.getTime() - start))
}

export interface OrganizationRules {
  /** Default organization; name or GUID. */
  organization: string
  namespaceOrganizations: Readonly<Record<string, string>>
  selectableOrganizations: readonly { organization: string; namespaces: readonly string[] }[]
}

type OrganizationChoice = { organization: string } | { refused: string }

/**
 * The organization whose images a namespace pulls.
 *
 * | settings name one for the namespace | annotation        | selectable for it | organization     |
 * |-------------------------------------|-------------------|-------------------|------------------|
 * | yes                                 | none, or the same |                   | the settings'    |
 * | no                                  | none              |                   | the default      |
 * | no                                  | the default       |                   | the default      |
 * | any                                 | another           | yes               | the annotation's |
 * | any                                 | another           | no                | refused          |
 */
export function chooseOrganization(
  namespace: string,
  annotation: string | undefined,
  rules: OrganizationRules,
): OrganizationChoice {
  const own = Object.hasOwn(rules.namespaceOrganizations, namespace)
    ? rules.namespaceOrganizations[namespace]
    : undefined
  const given = own ?? rules.organization
  if (annotation === undefined || annotation === given) return { organization: given }
  const allowed = rules.selectableOrganizations.some(
    ({ organization, namespaces }) =>
      organization === annotation && namespaces.some(pattern => matches(pattern, namespace)),
  )
  return allowed
    ? { organization: annotation }
    : { refused: `the settings do not let namespace ${namespace} use the organization it asks for` }
}

/** Every organization that the settings name. */
export function namedOrganizations(rules: OrganizationRules): string[] {
  return [
    rules.organization,
    ...Object.values(rules.namespaceOrganizations),
    ...rules.selectableOrganizations.map(({ organization }) => organization),
  ]
}

/** An exact name, or a beginning followed by `*`. */
function matches(pattern: string, namespace: string): boolean {
  return pattern.endsWith('*') ? namespace.startsWith(pattern.slice(0, -1)) : namespace === pattern
}

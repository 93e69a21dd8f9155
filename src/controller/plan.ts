import type { OptedInNamespace } from '../pull-secret/cache.ts'
import type { PullSecret } from '../pull-secret/pull-secret.ts'

export type Step =
  | {
      do: 'nothing'
      because:
        | 'ready'
        | 'not_managed'
        | 'terminating'
        | 'not_opted_in'
        | 'revocation_scheduled'
        | 'immutable'
    }
  /** Find or mint a token and write it. */
  | { do: 'ensure'; because: 'absent' | 'malformed' | 'other_organization' | 'revocation_due' }
  /** The same, while the present token stays valid for a grace. */
  | { do: 'renew'; because: 'expiring' | 'old' | 'refused' }
  /** The token before this one has had its grace. */
  | { do: 'revoke_previous' }
  /** Note on the Secret when it goes; take that note away. */
  | { do: 'schedule_revocation' }
  | { do: 'cancel_revocation' }
  /** Revoke the token and delete the Secret. */
  | { do: 'revoke' }

interface PlanRules {
  now: Date
  /** The organization that this namespace should use now. */
  organization: string
  rotateAfterMs: number | undefined
  rotateGraceMs: number
}

/**
 * The one step that is missing between what is and what should be.
 *
 * | namespace    | Secret of our name                           | step                          |
 * |--------------|----------------------------------------------|-------------------------------|
 * | terminating  | any                                          | nothing: terminating          |
 * | opted in     | absent                                       | ensure: absent                |
 * | opted in     | not ours                                     | nothing: not_managed          |
 * | any          | ours, being deleted                          | nothing: terminating          |
 * | opted in     | ours, immutable, and ensure or renew is next | nothing: immutable            |
 * | opted in     | ours, damaged                                | ensure: malformed             |
 * | opted in     | ours, of another organization                | ensure: other_organization    |
 * | opted in     | ours, revocation is due                      | ensure: revocation_due        |
 * | opted in     | ours, revocation is scheduled                | cancel_revocation             |
 * | opted in     | ours, past 2/3 of its life                   | renew: expiring               |
 * | opted in     | ours, older than the rotation age            | renew: old                    |
 * | opted in     | ours, the token before it has had its grace  | revoke_previous               |
 * | opted in     | ours, else                                   | nothing: ready                |
 * | not opted in | absent or not ours                           | nothing: not_opted_in         |
 * | not opted in | ours, damaged                                | revoke                        |
 * | not opted in | ours, no revocation is scheduled             | schedule_revocation           |
 * | not opted in | ours, revocation is scheduled                | nothing: revocation_scheduled |
 * | not opted in | ours, revocation is due                      | revoke                        |
 */
export function plan(
  namespace: OptedInNamespace | undefined,
  secret: PullSecret | undefined,
  rules: PlanRules,
): Step {
  if (namespace?.terminating) return { do: 'nothing', because: 'terminating' }
  if (namespace === undefined) return planLeaving(secret, rules.now)
  if (secret === undefined) return { do: 'ensure', because: 'absent' }
  if (!secret.ours) return { do: 'nothing', because: 'not_managed' }
  if (secret.terminating) return { do: 'nothing', because: 'terminating' }
  const step = planHeld(secret, rules)
  const changesData = step.do === 'ensure' || step.do === 'renew'
  return secret.immutable && changesData ? { do: 'nothing', because: 'immutable' } : step
}

function planHeld(secret: PullSecret, rules: PlanRules): Step {
  if (!secret.wellFormed) return { do: 'ensure', because: 'malformed' }
  if (secret.organization !== rules.organization) {
    return { do: 'ensure', because: 'other_organization' }
  }
  if (secret.revokeAt !== undefined) {
    return secret.revokeAt <= rules.now
      ? { do: 'ensure', because: 'revocation_due' }
      : { do: 'cancel_revocation' }
  }
  return planAgeing(secret, rules)
}

function planLeaving(secret: PullSecret | undefined, now: Date): Step {
  if (secret === undefined || !secret.ours) return { do: 'nothing', because: 'not_opted_in' }
  if (secret.terminating) return { do: 'nothing', because: 'terminating' }
  if (!secret.wellFormed) return { do: 'revoke' }
  if (secret.revokeAt === undefined) return { do: 'schedule_revocation' }
  return secret.revokeAt <= now
    ? { do: 'revoke' }
    : { do: 'nothing', because: 'revocation_scheduled' }
}

function planAgeing(secret: PullSecret, rules: PlanRules): Step {
  const age = rules.now.getTime() - (secret.mintedAt?.getTime() ?? Number.NEGATIVE_INFINITY)
  if (secret.expiresAt !== undefined && rules.now >= renewAt(secret)) {
    return { do: 'renew', because: 'expiring' }
  }
  if (rules.rotateAfterMs !== undefined && age >= rules.rotateAfterMs) {
    return { do: 'renew', because: 'old' }
  }
  if (secret.previousTokenId !== undefined && age >= rules.rotateGraceMs) {
    return { do: 'revoke_previous' }
  }
  return { do: 'nothing', because: 'ready' }
}

/** 2/3 of the token's life; one whose beginning is not known is renewed at once. */
function renewAt(secret: PullSecret): Date {
  const end = secret.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY
  const start = secret.mintedAt?.getTime() ?? Number.NEGATIVE_INFINITY
  return new Date(start === Number.NEGATIVE_INFINITY ? 0 : start + (2 / 3) * (end - start))
}

export interface OrganizationRules {
  /** The organization of every namespace of which nothing else is said; name or GUID. */
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

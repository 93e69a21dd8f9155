import type { PullSecret } from './pull-secret.ts'

/** What is known of a namespace; undefined stands for one that is gone or not opted in. */
export interface OptedInNamespace {
  name: string
  uid: string
  terminating: boolean
  /** The organization it asks for by annotation. */
  organization: string | undefined
}

export type Step =
  | {
      do: 'nothing'
      because: 'ready' | 'foreign' | 'terminating' | 'not_opted_in' | 'retiring' | 'immutable'
    }
  /** Find or mint a token and write it. */
  | { do: 'obtain'; because: 'absent' | 'malformed' | 'other_organization' | 'retired' }
  /** The same, while the present token stays valid for a grace. */
  | { do: 'renew'; because: 'expiring' | 'old' | 'refused' }
  /** The token before this one has had its grace. */
  | { do: 'revoke_previous' }
  /** Note on the Secret when it goes; take that note away. */
  | { do: 'mark' }
  | { do: 'unmark' }
  /** Revoke the token and delete the Secret. */
  | { do: 'retire' }

export interface PlanRules {
  now: Date
  /** The organization that this namespace should use now. */
  organization: string
  rotateAfterMs: number | undefined
  rotateGraceMs: number
}

/**
 * The one step that is missing between what is and what should be.
 *
 * | namespace    | Secret of our name                            | step                       |
 * |--------------|-----------------------------------------------|----------------------------|
 * | terminating  | any                                           | nothing: terminating       |
 * | opted in     | absent                                        | obtain: absent             |
 * | opted in     | not ours                                      | nothing: foreign           |
 * | any          | ours, being deleted                           | nothing: terminating       |
 * | opted in     | ours, immutable, and obtain or renew is next  | nothing: immutable         |
 * | opted in     | ours, damaged                                 | obtain: malformed          |
 * | opted in     | ours, of another organization                 | obtain: other_organization |
 * | opted in     | ours, marked to go, time over: half gone      | obtain: retired            |
 * | opted in     | ours, marked to go                            | unmark                     |
 * | opted in     | ours, past 2/3 of its life                    | renew: expiring            |
 * | opted in     | ours, older than the rotation age             | renew: old                 |
 * | opted in     | ours, the token before it has had its grace   | revoke_previous            |
 * | opted in     | ours, else                                    | nothing: ready             |
 * | not opted in | absent or not ours                            | nothing: not_opted_in      |
 * | not opted in | ours, damaged                                 | retire                     |
 * | not opted in | ours, not marked                              | mark                       |
 * | not opted in | ours, marked, time to come                    | nothing: retiring          |
 * | not opted in | ours, marked, time over                       | retire                     |
 */
export function plan(
  namespace: OptedInNamespace | undefined,
  secret: PullSecret | undefined,
  rules: PlanRules,
): Step {
  if (namespace?.terminating) return { do: 'nothing', because: 'terminating' }
  if (namespace === undefined) return planLeaving(secret, rules.now)
  if (secret === undefined) return { do: 'obtain', because: 'absent' }
  if (!secret.ours) return { do: 'nothing', because: 'foreign' }
  if (secret.terminating) return { do: 'nothing', because: 'terminating' }
  const step = planHeld(secret, rules)
  const changesData = step.do === 'obtain' || step.do === 'renew'
  return secret.immutable && changesData ? { do: 'nothing', because: 'immutable' } : step
}

function planHeld(secret: PullSecret, rules: PlanRules): Step {
  if (!secret.wellFormed) return { do: 'obtain', because: 'malformed' }
  if (secret.organization !== rules.organization) {
    return { do: 'obtain', because: 'other_organization' }
  }
  if (secret.retireAt !== undefined) {
    return secret.retireAt <= rules.now ? { do: 'obtain', because: 'retired' } : { do: 'unmark' }
  }
  return planAgeing(secret, rules)
}

function planLeaving(secret: PullSecret | undefined, now: Date): Step {
  if (secret === undefined || !secret.ours) return { do: 'nothing', because: 'not_opted_in' }
  if (secret.terminating) return { do: 'nothing', because: 'terminating' }
  if (!secret.wellFormed) return { do: 'retire' }
  if (secret.retireAt === undefined) return { do: 'mark' }
  return secret.retireAt <= now ? { do: 'retire' } : { do: 'nothing', because: 'retiring' }
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

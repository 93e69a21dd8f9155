import { type InventoryToken, isLive } from '../issuer/inventory.ts'
import type { OptedInNamespace } from '../pull-secret/cache.ts'
import type { PullSecret } from '../pull-secret/pull-secret.ts'
import { ageAt, isOver, type Step } from './plan.ts'

export type RevocationReason = 'rotated' | 'left' | 'gone' | 'spare'

/** A namespace at the moment of the decision. */
export interface Situation {
  /** `'gone'`: missing in a live read now, and since before the last list. `'missing'`: now only. */
  namespace: OptedInNamespace | 'not_opted_in' | 'missing' | 'gone'
  secret: PullSecret | undefined
  /** The row of the token in the Secret. */
  own: InventoryToken | undefined
  /** What `plan()` says of the namespace. */
  step: Step
  now: Date
  rotateGraceMs: number
}

/** What the inventory says of one organization's lists. */
interface Lists {
  lists: number
  unsupported: boolean
}

/**
 * Why a token of a namespace is revoked. Undefined: it is not. Whether anybody else acts under our
 * identity, and whether another Secret of ours holds the token, is asked before.
 *
 * | namespace              | its Secret                         | the token                        | reason  |
 * |------------------------|------------------------------------|----------------------------------|---------|
 * | any                    | any                                | over, or not in the last list    |         |
 * | gone, in two lists     |                                    | shown in both                    | gone    |
 * | not opted in or ending | holds none of its tokens           | any                              | left    |
 * | not opted in           | holds one, and its grace is over   | any                              | left    |
 * | opted in, ready        | its own token is live, shown in    | the previous one, its grace is   | rotated |
 * |                        | two lists in a row                 | over                             |         |
 * | opted in, ready        | the same                           | another, shown in two lists in a | spare   |
 * |                        |                                    | row                              |         |
 * | anything else          |                                    |                                  |         |
 *
 * Where the environment cannot list, or cannot any more, a token that this process minted stands for
 * one that lists show; no other is revoked, or counts as live.
 */
export function revocationReason(
  token: InventoryToken,
  about: Situation,
  listsOf: (organization: string) => Lists,
): RevocationReason | undefined {
  const { namespace, secret, own, now } = about
  const isShown = (row: InventoryToken, times: number) => isShownBy(listsOf, row, times)
  if (isOver(token, now) || !isShown(token, 1) || namespace === 'missing') return undefined
  if (namespace === 'gone') return isShown(token, 2) ? 'gone' : undefined
  if (namespace === 'not_opted_in' || namespace.terminating) {
    return isLeft(secret, own, now) ? 'left' : undefined
  }
  return beside(token, about, isShown)
}

/** Why a token beside the one in the Secret of an opted-in namespace is revoked. */
function beside(
  token: InventoryToken,
  about: Situation,
  isShown: (row: InventoryToken, times: number) => boolean,
): RevocationReason | undefined {
  const { secret, own, now } = about
  if (!isReady(about) || own === undefined || own === token) return undefined
  if (!isLive(own, now) || !isShown(own, 2)) return undefined
  if (secret?.previousTokenId === token.id) return graceIsOver(about, own) ? 'rotated' : undefined
  return isShown(token, 2) ? 'spare' : undefined
}

function isReady({ step, secret }: Situation): boolean {
  return step.do === 'nothing' && step.because === 'ready' && secret !== undefined
}

/** The last so many lists of its organization showed the token; without lists: this process minted it. */
function isShownBy(
  listsOf: (organization: string) => Lists,
  { organization, seenIn, seenInARow, mintedByUs }: InventoryToken,
  times: number,
): boolean {
  const { lists, unsupported } = listsOf(organization)
  return unsupported ? mintedByUs : lists > 0 && seenIn === lists && seenInARow >= times
}

/** A namespace that is not opted in holds on to its tokens for as long as its Secret stays. */
function isLeft(
  secret: PullSecret | undefined,
  own: InventoryToken | undefined,
  now: Date,
): boolean {
  if (!secret?.ours || own?.namespace !== secret.namespace) return true
  return secret.revokeAt !== undefined && secret.revokeAt <= now
}

function graceIsOver({ now, rotateGraceMs, secret }: Situation, own: InventoryToken): boolean {
  return ageAt(now, own.mintedAt ?? secret?.mintedAt) >= rotateGraceMs
}

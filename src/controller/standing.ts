import type { ListedMark } from '../issuer/marks.ts'

/** What the lists of this term say about one organization. */
export interface Standing {
  /** Number of the last list that was looked at. */
  list: number
  mark: Mark | undefined
  /** Lists in a row that showed our mark and no other. */
  alone: number
  /** When the last list was requested that did not, or when we changed the marks last. */
  settledAt: number
  /** When the last list was requested. */
  listedAt: number
  /** Lists in a row that did not show our mark. */
  missing: number
  /** Marks in a row that no list has shown. */
  neverShown: number
  /** Nonces of marks that are not ours, in the last list that showed one. */
  foreign: readonly string[]
  /** Lists in a row that did not show one. */
  withoutForeign: number
}

/** The mark that this term made. */
export interface Mark {
  nonce: string
  mintedAt: number
  renewAt: number
  shown: boolean
}

/** An environment whose list never shows our marks must not be filled with them. */
const mintAgainMs = 600_000
const mostNeverShown = 3
const listsInARow = 2
/** A list may lack rows: an alarm does not end with one that lacks the other side's mark. */
const listsToEndAlarm = 10

export function newStanding(): Standing {
  return {
    list: 0,
    mark: undefined,
    alone: 0,
    settledAt: 0,
    listedAt: 0,
    missing: 0,
    neverShown: 0,
    foreign: [],
    withoutForeign: 0,
  }
}

/** Takes in one more list: the live marks in it, and which nonces are ours. */
export function judge(
  standing: Standing,
  marks: ReadonlyMap<string, ListedMark>,
  ours: ReadonlySet<string>,
): void {
  const { mark, listedAt } = standing
  const shown = [...marks].filter(([, each]) => each.shown)
  const isShown = shown.some(([nonce]) => nonce === mark?.nonce)
  const isAlone = isShown && shown.length === 1
  const misses = !isShown && mark !== undefined && mark.mintedAt < listedAt
  const foreign = shown.map(([nonce]) => nonce).filter(nonce => !ours.has(nonce))
  standing.withoutForeign = foreign.length > 0 ? 0 : standing.withoutForeign + 1
  if (foreign.length > 0) standing.foreign = foreign
  else if (standing.withoutForeign >= listsToEndAlarm) standing.foreign = []
  standing.alone = isAlone ? standing.alone + 1 : 0
  if (!isAlone) standing.settledAt = listedAt
  standing.missing = misses ? standing.missing + 1 : 0
  if (isShown && mark !== undefined) mark.shown = true
}

/** A mark that stood alone and is renewed needs no answer from the other side: there is none. */
export function unsettle(standing: Standing, now: Date): void {
  if (standing.alone === 0) standing.settledAt = now.getTime()
}

/** Another pullpass with our identity has to see a mark of ours, and may have revoked the last one. */
export function isMarkDue(standing: Standing, time: number): boolean {
  const { mark, missing, neverShown, foreign } = standing
  if (mark === undefined || time >= mark.renewAt) return true
  if (missing === 0 || mark.shown) return missing > 0
  if (neverShown >= mostNeverShown) return time - mark.mintedAt >= mintAgainMs
  return foreign.length > 0 || missing >= listsInARow
}

/**
 * Two lists are enough only if the other side has had the time to read one too, and to make a mark
 * anew where we revoked the one that both had.
 */
export function hasStoodAlone(standing: Standing, listEveryMs: number): boolean {
  if (standing.alone < listsInARow) return false
  return standing.listedAt - standing.settledAt >= 1.5 * listEveryMs
}

export function isMissing({ missing }: Standing): boolean {
  return missing >= listsInARow
}

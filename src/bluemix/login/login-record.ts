import { randomUUID } from 'node:crypto'
import { environmentFailure } from '../http/answer.ts'

/** A line of text that outlives this process and that all replicas share: an annotation of the Lease. */
export interface Note {
  /** Undefined where nothing was written yet. */
  read(): Promise<string | undefined>
  /** Rejects where another process has changed the text since it was read. */
  write(text: string): Promise<void>
}

const outcomes = ['begun', 'granted', 'refused', 'unanswered', 'locked'] as const

/** `begun`: no answer yet. Its process may have ended since, so it counts like `unanswered`. */
export type Outcome = (typeof outcomes)[number]

/** Why a login failed. */
export interface Reason {
  code: string
  message: string
}

export interface Attempt {
  id: string
  /** When it ended; when it began, if its end is not known. */
  at: number
  /** The fingerprint of the credentials. */
  key: string
  outcome: Outcome
  reason?: Reason | undefined
}

/** The logins of all processes, oldest first, as far as a rule may need them. */
export interface LoginRecord {
  /** Times are those of `elapsed`. */
  attempts(): readonly Attempt[]
  /** Takes in what other processes have recorded. */
  read(): Promise<void>
  /** The last login failed for this reason, as is known now. */
  explainLast(reason: Reason): void
  /**
   * Records a login before it is sent. Rejects where that fails, and where another process has
   * recorded one since `read`. Call the result when the login has ended; that never rejects.
   */
  begin(key: string): Promise<(outcome: Outcome | 'unsent', reason?: Reason) => Promise<void>>
}

interface Dependencies {
  note: Note
  /** The clock that all replicas share, in epoch milliseconds. */
  now: () => number
  /** Monotonic milliseconds. */
  elapsed: () => number
}

/**
 * The note has times of the shared clock. In memory each login keeps its age by the monotonic clock,
 * so a clock that is set while this process runs changes nothing. A time of the future (the clock of
 * another process was ahead) is taken for now.
 */
export function createLoginRecord(dependencies: Dependencies): LoginRecord {
  const { note, now, elapsed } = dependencies
  let known: readonly Attempt[] = []
  const write = () => note.write(noteText(known, now() - elapsed()))
  async function read(): Promise<void> {
    const noted = parse(await note.read().catch(notRecorded))
    const ages = noted.map(each => ({ ...each, at: elapsed() - Math.max(0, now() - each.at) }))
    known = needed(merge(known, ages), elapsed())
    // Written at once, so that the wait does not begin anew at each restart.
    if (noted.some(({ at }) => at > now())) await write().catch(notRecorded)
  }
  return {
    attempts: () => known,
    read,
    explainLast: reason => {
      known = known.map((each, at) => (at === known.length - 1 ? { ...each, reason } : each))
    },
    async begin(key) {
      const attempt: Attempt = { id: newId(), at: elapsed(), key, outcome: 'begun' }
      const others = () => known.filter(({ id }) => id !== attempt.id)
      known = needed([...known, attempt], elapsed())
      await write().catch(error => {
        known = others()
        notRecorded(error)
      })
      return async (outcome, reason) => {
        const ended = outcome === 'unsent' ? [] : [{ ...attempt, at: elapsed(), outcome, reason }]
        const conclude = () => {
          known = [...others(), ...ended]
          return write()
        }
        // Another process may have written meanwhile: once more, on what it wrote. If that fails,
        // other processes see a login without an answer: the safe side.
        await conclude().catch(() => read().then(conclude).catch(nothing))
      }
    },
  }
}

export const windowMs = 1_200_000
export const afterLockedMs = 600_000
/** Bounds the note while somebody changes the credentials all the time. */
const mostOfEach = 8

export function isCounted({ outcome }: Attempt): boolean {
  return outcome !== 'granted' && outcome !== 'locked'
}

/** The last login, those that count, and those that found the account locked. */
function needed(attempts: readonly Attempt[], nowMs: number): Attempt[] {
  const all = attempts.toSorted((one, other) => one.at - other.at)
  const counted = all.filter(each => isCounted(each) && each.at > nowMs - windowMs)
  const locked = all.filter(each => each.outcome === 'locked' && each.at > nowMs - afterLockedMs)
  const kept = new Set([...counted.slice(-mostOfEach), ...locked.slice(-mostOfEach), all.at(-1)])
  return all.filter(each => kept.has(each))
}

/** Each login once. What this process knows counts, unless another one knows how the login ended. */
function merge(known: readonly Attempt[], noted: readonly Attempt[]): Attempt[] {
  const byId = new Map(noted.map(attempt => [attempt.id, attempt]))
  for (const attempt of known) {
    if (attempt.outcome !== 'begun' || !byId.has(attempt.id)) byId.set(attempt.id, attempt)
  }
  return [...byId.values()]
}

/** Only the last reason is of use, and a Lease should be small. */
function noteText(known: readonly Attempt[], clockOffset: number): string {
  const attempts = known.map((attempt, index) => ({
    ...attempt,
    at: Math.round(attempt.at + clockOffset),
    reason: index === known.length - 1 ? attempt.reason : undefined,
  }))
  return JSON.stringify({ attempts })
}

function parse(text: string | undefined): Attempt[] {
  try {
    const found = (JSON.parse(text ?? '') as { attempts?: unknown } | null)?.attempts
    return Array.isArray(found) ? found.filter(isAttempt) : []
  } catch {
    return []
  }
}

function isAttempt(value: Partial<Attempt> | null): value is Attempt {
  const { id, at, key, outcome, reason } = value ?? {}
  const isKnown = outcomes.some(each => each === outcome)
  const hasReason = typeof reason?.code === 'string' && typeof reason.message === 'string'
  const hasTexts = typeof id === 'string' && typeof key === 'string'
  return hasTexts && isKnown && Number.isFinite(at) && (reason === undefined || hasReason)
}

const nothing = () => {}

function newId(): string {
  return randomUUID().slice(0, 8)
}

function notRecorded({ message }: Error): never {
  const text = `cannot log in: the login cannot be recorded before it is sent: ${message}`
  throw environmentFailure('transient', 'login_not_noted', text)
}

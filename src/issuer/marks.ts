/**
 * Live marks, by nonce. `inARow`: complete lists in a row that showed the mark. `missingInARow`:
 * lists in a row that did not show a mark of this process; a mark of others that is missing is
 * dropped at once.
 */
export type Marks = Map<string, { id: string; inARow: number; missingInARow: number }>

/** The marks of leaders in one organization. */
export interface MarkTable {
  current(): Marks
  minted(nonce: string, id: string): void
  revoked(id: string): void
  /** `shown`: the live marks of a complete list, nonce to id. */
  replace(shown: Map<string, string>, begunAt: Date): void
}

/** For so long a list may not show a new mark yet. */
const settlesMs = 60_000

export function createMarkTable({ now }: { now: () => Date }): MarkTable {
  let marks: Marks = new Map()
  const mintedAt = new Map<string, Date>()
  const isYoung = (time: Date, begunAt: Date) => begunAt.getTime() < time.getTime() + settlesMs
  return {
    current: () => new Map(marks),
    minted: (nonce, id) => {
      marks.set(nonce, { id, inARow: 0, missingInARow: 0 })
      mintedAt.set(nonce, now())
    },
    revoked: id => {
      for (const [nonce, mark] of marks) {
        if (mark.id !== id) continue
        marks.delete(nonce)
        mintedAt.delete(nonce)
      }
    },
    replace: (shown, begunAt) => {
      const next: Marks = new Map()
      for (const [nonce, time] of mintedAt) {
        const mark = marks.get(nonce) ?? { id: '', inARow: 0, missingInARow: 0 }
        const missingInARow = isYoung(time, begunAt) ? 0 : mark.missingInARow + 1
        next.set(nonce, { id: mark.id, inARow: 0, missingInARow })
      }
      for (const [nonce, id] of shown) {
        next.set(nonce, { id, inARow: (marks.get(nonce)?.inARow ?? 0) + 1, missingInARow: 0 })
      }
      marks = next
    },
  }
}

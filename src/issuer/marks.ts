/** A live mark. */
export interface ListedMark {
  /** Empty where it is not known yet. */
  id: string
  /** The last complete list shows it. Marks of others are dropped when a list does not show them. */
  shown: boolean
  mintedByUs: boolean
}

/** Live marks, by nonce. */
export type Marks = Map<string, ListedMark>

/** The marks of leaders in one organization. */
export interface MarkTable {
  current(): Marks
  minted(nonce: string, id: string): void
  revoked(id: string): void
  /** `shown`: the live marks of a complete list, nonce to id. */
  replace(shown: Map<string, string>): void
}

export function createMarkTable(): MarkTable {
  let marks: Marks = new Map()
  return {
    current: () => new Map(marks),
    minted: (nonce, id) => void marks.set(nonce, { id, shown: false, mintedByUs: true }),
    revoked: id => {
      for (const [nonce, mark] of marks) if (mark.id === id) marks.delete(nonce)
    },
    replace: shown => {
      const next: Marks = new Map()
      for (const [nonce, mark] of marks) {
        if (mark.mintedByUs) next.set(nonce, { ...mark, shown: false })
      }
      for (const [nonce, id] of shown) {
        next.set(nonce, { id, shown: true, mintedByUs: marks.get(nonce)?.mintedByUs ?? false })
      }
      marks = next
    },
  }
}

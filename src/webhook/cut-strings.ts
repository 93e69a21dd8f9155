const QUOTE = 0x22
const BACKSLASH = 0x5c
const LETTER_U = 0x75

/**
 * Shortens the strings of a JSON text, which arrives in slices, to about `most` bytes, and changes
 * nothing else. The fields that pullpass reads are short, but other strings of a pod can have megabytes.
 * A tokenizer needs a hundred times as long for a byte as a search for the end of the string. Escapes and
 * characters stay whole.
 */
export class StringCutter {
  readonly #most: number
  #place: 'between strings' | 'in a string' | 'left out' = 'between strings'
  /** Of the string that is read, so far. */
  #length = 0
  /** Bytes of an escape that are still to come. */
  #escape = 0
  #isEscapeBegun = false
  /** The number of backslashes at the end of what was left out in the slices before. */
  #backslashes = 0

  constructor(most: number) {
    this.#most = most
  }

  /** The parts of the slice that stay. */
  cut(slice: Uint8Array): Uint8Array[] {
    const kept: Uint8Array[] = []
    let start = 0
    for (let at = 0; at < slice.length; ) {
      const wasLeftOut = this.#place === 'left out'
      at = this.#pass(slice, at)
      if (wasLeftOut) start = at
      const isEnd = this.#place === 'left out' || at === slice.length
      if (!wasLeftOut && isEnd && at > start) kept.push(slice.subarray(start, at))
    }
    return kept
  }

  /** Goes to where the place changes, or to the end of the slice. */
  #pass(slice: Uint8Array, from: number): number {
    if (this.#place === 'in a string') return this.#passString(slice, from)
    if (this.#place === 'left out') return this.#passLeftOut(slice, from)
    const quote = slice.indexOf(QUOTE, from)
    if (quote < 0) return slice.length
    this.#place = 'in a string'
    this.#length = 0
    return quote + 1
  }

  #passString(slice: Uint8Array, from: number): number {
    for (let at = from; at < slice.length; at++) {
      const byte = slice[at] as number
      if (this.#isCharacterBegun(byte)) {
        if (byte === QUOTE) {
          this.#place = 'between strings'
          return at + 1
        }
        if (this.#length >= this.#most) {
          this.#place = 'left out'
          return at
        }
      }
      this.#length++
      this.#countEscape(byte)
    }
    return slice.length
  }

  /** UTF-8 marks the second and later bytes of a character. */
  #isCharacterBegun(byte: number): boolean {
    return this.#escape === 0 && !this.#isEscapeBegun && (byte & 0xc0) !== 0x80
  }

  #countEscape(byte: number): void {
    if (this.#escape > 0) {
      this.#escape--
    } else if (this.#isEscapeBegun) {
      this.#isEscapeBegun = false
      this.#escape = byte === LETTER_U ? 4 : 0
    } else {
      this.#isEscapeBegun = byte === BACKSLASH
    }
  }

  #passLeftOut(slice: Uint8Array, from: number): number {
    for (let start = from; ; ) {
      const quote = slice.indexOf(QUOTE, start)
      const end = quote < 0 ? slice.length : quote
      const found = backslashesBefore(slice, start, end)
      this.#backslashes = found === end - start ? this.#backslashes + found : found
      if (quote < 0) return end
      const isEnd = this.#backslashes % 2 === 0
      this.#backslashes = 0
      if (isEnd) {
        this.#place = 'in a string'
        return quote
      }
      start = quote + 1
    }
  }
}

function backslashesBefore(slice: Uint8Array, start: number, end: number): number {
  let first = end
  while (first > start && slice[first - 1] === BACKSLASH) first--
  return end - first
}

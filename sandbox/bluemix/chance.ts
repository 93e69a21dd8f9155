/** Decides for each request whether it fails. */
export function chance(fault: {
  seed?: number
  times?: number
  probability?: number
}): () => boolean {
  const random = mulberry32(fault.seed ?? 1)
  let left = fault.times ?? Number.POSITIVE_INFINITY
  return () => {
    if (left <= 0 || random() >= (fault.probability ?? 1)) return false
    left -= 1
    return true
  }
}

/** A small generator with a seed: the same requests fail in each run. */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

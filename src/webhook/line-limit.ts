/**
 * For log lines that a client can cause: the function says whether one more may be written in this
 * second. A log that is written to without end blocks the process, and fills the node's disk.
 */
export function createLineLimit(perSecond: number): () => boolean {
  let second = 0
  let lines = 0
  return () => {
    const now = Math.floor(performance.now() / 1000)
    lines = now === second ? lines + 1 : 1
    second = now
    return lines <= perSecond
  }
}

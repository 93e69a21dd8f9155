/**
 * Limits log lines that a client can cause. The function returns whether one more may be written in
 * this second. Endless log lines block the process and fill the disk of the node.
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

/** How long to wait before a container is started again. */
export interface BackOff {
  /** `ranMs`: how long it had run before it ended. */
  next(ranMs: number): number
}

/**
 * The kubelet's rhythm: at once the first time, then `firstMs`, doubled each time up to `mostMs`,
 * and from the beginning again after it ran for twice `mostMs` (kubernetes/kubernetes pkg/kubelet:
 * 10 s, 5 min, 10 min).
 */
export function createBackOff(firstMs: number, mostMs: number): BackOff {
  let waitMs = 0
  return {
    next(ranMs) {
      const now = ranMs > 2 * mostMs ? 0 : waitMs
      waitMs = now === 0 ? firstMs : Math.min(now * 2, mostMs)
      return now
    },
  }
}

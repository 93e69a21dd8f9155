const failuresToLock = 5
const windowMs = 1_200_000
const lockMs = 300_000

/** UAA's default policy: 5 failures in 1200 s lock for 300 s (oauth-endpoints.xml, 4.8.0). */
export interface Lockout {
  locked(name: string, now: number): boolean
  failed(name: string, now: number): void
  succeeded(name: string): void
}

/**
 * As UAA's PeriodLockoutPolicy: only failures since the last success count; the lock lasts from the
 * newest of them; an attempt while locked is refused before the password is checked and does not count.
 */
export function createLockout(): Lockout {
  const failures = new Map<string, number[]>()
  return {
    locked: (name, now) => {
      const recent = (failures.get(name) ?? []).filter(at => at > now - windowMs)
      return recent.length >= failuresToLock && Math.max(...recent) > now - lockMs
    },
    failed: (name, now) => {
      failures.set(name, [...(failures.get(name) ?? []), now])
    },
    succeeded: name => {
      failures.delete(name)
    },
  }
}

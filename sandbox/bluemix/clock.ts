/** The environment's clock: the machine's, moved by hand. All times are epoch milliseconds. */
export interface ClockControl {
  now(): number
  /** Lets the environment's time pass; the machine's stays. */
  advance(milliseconds: number): void
}

export function createClock(): ClockControl {
  let offset = 0
  return {
    now: () => Date.now() + offset,
    advance: milliseconds => {
      offset += milliseconds
    },
  }
}

/** JWT times are whole seconds. */
export function seconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000)
}

/** The environment's clock: that of the machine plus an offset. All times are epoch milliseconds. */
export interface ClockControl {
  now(): number
  /** Advances the environment's clock; that of the machine does not change. */
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

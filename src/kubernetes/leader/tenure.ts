import type { Logger } from 'pino'

/** The time for which leading is certain, and who wants to know when it begins and ends. */
export interface Tenure {
  /**
   * By the clock at this moment, so it is right also in the first instant after the process was
   * stopped.
   */
  current(): boolean
  /**
   * Certain until `until` (milliseconds of the clock). A gap since the last tenure is told as an
   * end.
   */
  extend(until: number): void
  end(): void
  onChange(listener: (leading: boolean) => void): void
}

/** Whether the lease is held, by this process's own clock: it ends by itself unless prolonged. */
export function createTenure(options: {
  now: () => number
  logger: Logger
  /** Called before the listeners. */
  changed: (leading: boolean) => void
}): Tenure {
  const { now, logger } = options
  const listeners = [options.changed]
  let certainUntil = Number.NEGATIVE_INFINITY
  let told = false
  let expiry: NodeJS.Timeout | undefined

  const current = () => now() < certainUntil

  function tell(): void {
    clearTimeout(expiry)
    const leading = current()
    if (leading) expiry = setTimeout(tell, certainUntil - now() + 1)
    if (leading === told) return
    told = leading
    for (const listener of listeners) call(logger, () => listener(leading))
  }

  return {
    current,
    extend(until) {
      tell()
      certainUntil = until
      tell()
    },
    end() {
      certainUntil = Number.NEGATIVE_INFINITY
      tell()
    },
    onChange: listener => listeners.push(listener),
  }
}

function call(logger: Logger, listener: () => void): void {
  try {
    listener()
  } catch (error) {
    logger.error({ error: (error as Error).name }, 'a listener failed: this is a bug')
  }
}

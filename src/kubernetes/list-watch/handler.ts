import type { Logger } from 'pino'
import { framesOf } from '../../bug.ts'
import type { WatchMeters } from './watch-meters.ts'

/** Keeps up with a set of objects. Called in order, one call at a time; must not throw. */
export interface ListWatchHandler<T> {
  /** The whole set as it is: what is not in it is gone. */
  replace(items: T[], listVersion: string): void
  upsert(item: T): void
  remove(item: T): void
}

/**
 * The same handler, whose exceptions are logged and counted: they are bugs, and a bug in handling
 * one object must not end the watch for all others. Their messages may quote the object, so only
 * their place is logged.
 */
export function guarded<T>(
  handler: ListWatchHandler<T>,
  { logger, meters }: { logger: Logger; meters: WatchMeters },
): ListWatchHandler<T> {
  const guard = (deed: () => void) => {
    try {
      deed()
    } catch (error) {
      meters.failed('handler')
      logger.error({ at: framesOf(error) }, 'a change could not be handled: this is a bug')
    }
  }
  return {
    replace: (...list) => guard(() => handler.replace(...list)),
    upsert: item => guard(() => handler.upsert(item)),
    remove: item => guard(() => handler.remove(item)),
  }
}

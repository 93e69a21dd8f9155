import type { Logger } from 'pino'
import { framesOf } from '../../bug.ts'
import type { WatchMeters } from './watch-meters.ts'

/** Keeps up with a set of objects. Called in order, one call at a time; must not throw. */
export interface ListWatchHandler<T> {
  /** A list begins, in which the whole set arrives object by object. */
  replace(): Replacement<T>
  upsert(item: T): void
  remove(item: T): void
}

/** A list that is arriving. It counts for nothing until it is complete. */
export interface Replacement<T> {
  add(item: T): void
  /**
   * The list is complete: what is not in it is gone. `anew`: the API server went back in time, so
   * nothing that was known before counts.
   */
  complete(listVersion: string, anew: boolean): void
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
    replace: () => {
      const replacement = handler.replace()
      return {
        add: item => guard(() => replacement.add(item)),
        complete: (...list) => guard(() => replacement.complete(...list)),
      }
    },
    upsert: item => guard(() => handler.upsert(item)),
    remove: item => guard(() => handler.remove(item)),
  }
}

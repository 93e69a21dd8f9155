import { LRUCache as RealCache } from 'lru-cache'

type Options = { max: number; ttl?: number }

/** The real cache with less room: it allocates all of it at once, for each process of the model. */
export class LRUCache<K extends object | string, V extends object | string> extends RealCache<
  K,
  V
> {
  constructor(options: Options) {
    super({ ...options, max: Math.min(options.max, 100) })
  }
}

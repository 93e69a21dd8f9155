import { setTimeout as sleep } from 'node:timers/promises'
import { type KubeConfig, type KubernetesObject, Watch } from '@kubernetes/client-node'

/** The objects of one kind as the API server has them, kept current by list and watch. */
export interface Followed<T> {
  all(): T[]
  named(name: string): T | undefined
  /** Called after each change; `gone` where the object is not there any more. */
  onChange(listener: (object: T, gone: boolean) => void): void
  stop(): Promise<void>
}

/**
 * Lists, then watches, and starts over whenever a watch ends. Resolves after the first list,
 * rejects where that fails.
 */
export async function follow<T extends KubernetesObject>(options: {
  kubeConfig: KubeConfig
  path: string
  list: () => Promise<{ metadata?: { resourceVersion?: string }; items: T[] }>
}): Promise<Followed<T>> {
  const objects = new Map<string, T>()
  const listeners: ((object: T, gone: boolean) => void)[] = []
  const stopping = new AbortController()
  const report = (object: T, gone: boolean) => {
    for (const listener of listeners) listener(object, gone)
  }

  async function relist(): Promise<string> {
    const { metadata, items } = await options.list()
    const listed = new Set(items.map(keyOf))
    for (const [key, object] of objects) {
      if (!listed.has(key)) change(object, true)
    }
    for (const item of items) change(item, false)
    return metadata?.resourceVersion ?? ''
  }

  function change(object: T, gone: boolean): void {
    if (gone) objects.delete(keyOf(object))
    else objects.set(keyOf(object), object)
    report(object, gone)
  }

  async function watch(resourceVersion: string): Promise<void> {
    const ended = Promise.withResolvers<void>()
    const query = { resourceVersion, timeoutSeconds: 25 }
    const onEvent = (type: string, object: T) => {
      // An ERROR event (410 and the like) ends the watch; the next list puts all right.
      if (type === 'ADDED' || type === 'MODIFIED') change(object, false)
      if (type === 'DELETED') change(object, true)
    }
    const request = await new Watch(options.kubeConfig).watch(options.path, query, onEvent, () =>
      ended.resolve(),
    )
    const abort = () => request.abort()
    stopping.signal.addEventListener('abort', abort)
    if (stopping.signal.aborted) abort()
    await ended.promise
    stopping.signal.removeEventListener('abort', abort)
  }

  async function keepOn(first: string): Promise<void> {
    let resourceVersion = first
    while (!stopping.signal.aborted) {
      try {
        await watch(resourceVersion)
        if (!stopping.signal.aborted) resourceVersion = await relist()
      } catch {
        await sleep(500)
      }
    }
  }

  const running = keepOn(await relist())
  return {
    all: () => [...objects.values()],
    named: name => [...objects.values()].find(object => object.metadata?.name === name),
    onChange: listener => void listeners.push(listener),
    async stop() {
      stopping.abort()
      await running
    },
  }
}

function keyOf({ metadata }: KubernetesObject): string {
  return `${metadata?.namespace}/${metadata?.name}`
}

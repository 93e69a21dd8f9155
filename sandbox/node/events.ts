import { randomUUID } from 'node:crypto'
import type { CoreV1Api, V1Pod } from '@kubernetes/client-node'
import type { Say } from './container/start-patiently.ts'

/**
 * Tells of a pod in events, as the kubelet does; the same words about the same pod are told once.
 */
export function createEvents(
  core: CoreV1Api,
  nodeName: string,
): { say(pod: V1Pod): Say; settled(): Promise<unknown> } {
  const reported = new Set<string>()
  const underWay = new Set<Promise<unknown>>()

  function say({ metadata = {} }: V1Pod): Say {
    const { name = '', namespace = '', uid = '' } = metadata
    return (type, reason, message) => {
      const key = `${uid} ${reason} ${message}`
      if (reported.has(key)) return
      reported.add(key)
      const now = new Date()
      const body = {
        metadata: { name: `${name}.${randomUUID()}`, namespace },
        involvedObject: { apiVersion: 'v1', kind: 'Pod', name, namespace, uid },
        source: { component: 'sandbox-node', host: nodeName },
        ...{ type, reason, message, firstTimestamp: now, lastTimestamp: now, count: 1 },
      }
      // An event that cannot be written (the namespace ends) changes nothing for the pod.
      const writing = core.createNamespacedEvent({ namespace, body }).catch(() => {})
      underWay.add(writing)
      void writing.then(() => underWay.delete(writing))
    }
  }
  return { say, settled: () => Promise.all(underWay) }
}

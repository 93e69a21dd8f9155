import { setTimeout as sleep } from 'node:timers/promises'
import {
  type CoreV1Api,
  PatchStrategy,
  setHeaderOptions,
  type V1Pod,
  type V1PodStatus,
} from '@kubernetes/client-node'

export interface StatusWriter {
  /** Says that the status may have changed. */
  changed(): void
  /** Resolves when what was so at the call is written, or the pod is gone. */
  flush(): Promise<void>
}

const MERGE = setHeaderOptions('Content-Type', PatchStrategy.MergePatch)
const TRIES = 20

/** Writes a pod's status after each change, one write at a time, the latest state each time. */
export function createStatusWriter(
  core: CoreV1Api,
  pod: V1Pod,
  current: () => V1PodStatus,
): StatusWriter {
  const { name = '', namespace = '', uid = '' } = pod.metadata ?? {}
  let dirty = false
  let running: Promise<void> | undefined

  async function write(): Promise<void> {
    for (let tries = 0; dirty && tries < TRIES; tries++) {
      dirty = false
      if (await written()) tries = 0
      else await sleep(500)
    }
  }

  /** Also true where there is nothing to write to any more: gone, or another of the same name. */
  async function written(): Promise<boolean> {
    // With its uid: a pod of the same name that came after this one is another.
    const body = { metadata: { uid }, status: current() }
    try {
      await core.patchNamespacedPodStatus({ name, namespace, body }, MERGE)
      return true
    } catch (error) {
      const { code } = error as { code?: number }
      if (code === 404 || code === 409) return true
      dirty = true
      return false
    }
  }

  function changed(): void {
    dirty = true
    running ??= write().finally(() => {
      running = undefined
      if (dirty) changed()
    })
  }
  return {
    changed,
    async flush() {
      changed()
      while (running) await running
    },
  }
}

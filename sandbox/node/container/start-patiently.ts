import { setTimeout as sleep } from 'node:timers/promises'
import { type Program, type RunningProcess, startProcess } from '../../processes.ts'
import { ConfigError } from '../pod/config-error.ts'

/** Reports what happens to a pod, as an event. */
export type Say = (type: 'Normal' | 'Warning', reason: string, message: string) => void

const AGAIN_MS = 1000

/**
 * Starts a program as soon as everything it needs is there; says why it cannot be started
 * meanwhile. Undefined where `stopping` came first.
 */
export async function startPatiently(options: {
  launch: () => Promise<Program & { outputFile: string }>
  stopping: AbortSignal
  onWaiting: (reason: string, message: string) => void
  say: Say
}): Promise<RunningProcess | undefined> {
  const { launch, stopping, onWaiting, say } = options
  while (!stopping.aborted) {
    try {
      return await startProcess(await launch())
    } catch (error) {
      const reason = error instanceof ConfigError ? error.reason : 'CreateContainerError'
      const { message } = error as Error
      say('Warning', 'Failed', `Error: ${message}`)
      onWaiting(reason, message)
      await sleep(AGAIN_MS, undefined, { signal: stopping }).catch(() => {})
    }
  }
  return undefined
}

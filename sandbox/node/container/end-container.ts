import { setTimeout as sleep } from 'node:timers/promises'
import type { RunningProcess } from '../../processes.ts'
import { act, type Surroundings } from './action.ts'

/**
 * However long a preStop hook took, the program gets this long to end (kubernetes/kubernetes
 * pkg/kubelet/kuberuntime).
 */
const LEAST_GRACE_MS = 2000

/**
 * Ends a container's program as the kubelet does: preStop hook, SIGTERM, and SIGKILL when the
 * grace is over; the hook's time counts. A grace of 0 is SIGKILL at once. `hurry` makes an end of
 * all waiting.
 */
export async function endContainer(options: {
  process: RunningProcess
  surroundings: Surroundings
  graceMs: number
  hurry: AbortSignal
  onFailure: (message: string) => void
}): Promise<void> {
  const { process: program, surroundings, graceMs } = options
  const end = performance.now() + graceMs
  const over = (ms: number) => sleep(ms, undefined, { signal: options.hurry }).catch(() => {})
  const preStop = surroundings.container.lifecycle?.preStop

  if (preStop && graceMs > 0 && program.running()) {
    const hook = act(preStop, surroundings, graceMs).catch((error: Error) =>
      options.onFailure(`preStop hook failed: ${error.message}`),
    )
    await Promise.race([hook, over(graceMs), program.ended])
  }
  if (graceMs > 0) terminate(program)
  const left = graceMs > 0 ? Math.max(end - performance.now(), LEAST_GRACE_MS) : 0
  if (!options.hurry.aborted) await Promise.race([program.ended, over(left)])
  await program.stop(0)
}

/** SIGTERM is for the first process of a container alone. */
function terminate(program: RunningProcess): void {
  try {
    if (program.running()) process.kill(program.pid, 'SIGTERM')
  } catch {
    // It ended in this very moment.
  }
}

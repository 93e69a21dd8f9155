import { constants } from 'node:os'
import type { V1Container } from '@kubernetes/client-node'
import type { Ending, RunningProcess } from '../../processes.ts'

/** Whether a restart policy wants a container started again that ended with this code. */
export function restarts(policy: 'Always' | 'OnFailure' | 'Never', exitCode: number): boolean {
  return policy === 'Always' || (policy === 'OnFailure' && exitCode !== 0)
}

/**
 * How a program's end is told in a container's status; a signal counts as 128 and its number, as in
 * a shell.
 */
export function outcome({ code, signal }: Ending, program: RunningProcess, container: V1Container) {
  const exitCode = code ?? 128 + (signal ? constants.signals[signal] : 0)
  const withMessage =
    container.terminationMessagePolicy === 'FallbackToLogsOnError' && exitCode !== 0
  return {
    exitCode,
    reason: exitCode === 0 ? 'Completed' : 'Error',
    ...(withMessage && {
      message: program.output().split('\n').slice(-80).join('\n').slice(-2048),
    }),
  }
}

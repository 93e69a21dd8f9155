import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Probe } from '@kubernetes/client-node'

/** What a probe found: `passed` and `failed` only when the threshold is reached. */
export type Verdict = 'passed' | 'failed'

/**
 * Asks in the probe's own rhythm until `signal` is aborted. `onVerdict` hears each verdict that a
 * threshold has made, again with every further check that says the same; `onFailure` each single
 * check that failed.
 */
export async function watchProbe(options: {
  probe: V1Probe
  check: (timeoutMs: number) => Promise<void>
  signal: AbortSignal
  onVerdict: (verdict: Verdict) => void
  onFailure: (message: string) => void
}): Promise<void> {
  const { probe, signal, onVerdict, onFailure } = options
  const { timeoutSeconds = 1, periodSeconds = 10, initialDelaySeconds = 0 } = probe
  const count = counter(probe)
  await pause(initialDelaySeconds * 1000, signal)
  while (!signal.aborted) {
    const failure = await options.check(timeoutSeconds * 1000).then(nothing, messageOf)
    if (signal.aborted) return
    if (failure !== undefined) onFailure(failure)
    const verdict = count(failure === undefined ? 'passed' : 'failed')
    if (verdict) onVerdict(verdict)
    await pause(periodSeconds * 1000, signal)
  }
}

/** A verdict once as many checks in a row said the same as its threshold asks for. */
function counter({ successThreshold = 1, failureThreshold = 3 }: V1Probe) {
  const thresholds = { passed: successThreshold, failed: failureThreshold }
  let last: Verdict | undefined
  let same = 0
  return (verdict: Verdict): Verdict | undefined => {
    same = verdict === last ? same + 1 : 1
    last = verdict
    return same >= thresholds[verdict] ? verdict : undefined
  }
}

function nothing(): undefined {
  return undefined
}

function messageOf(error: Error): string {
  return error.message
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {})
}

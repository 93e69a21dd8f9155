import type { V1Probe } from '@kubernetes/client-node'
import { act, type Surroundings } from './action.ts'
import { type Verdict, watchProbe } from './probe.ts'

/** What the probes say of a running container. */
export interface Health {
  started: boolean
  ready: boolean
}

/**
 * Runs the three probes of a container from its start until `signal` is aborted: the startup
 * probe alone first, then liveness and readiness. Without a startup probe it has started at once,
 * without a readiness probe it is then ready. `onUnhealthy` hears once that the container must be
 * killed, why, and with what grace of its own.
 */
export function watchHealth(options: {
  surroundings: Surroundings
  signal: AbortSignal
  onChange: (health: Health) => void
  onUnhealthy: (message: string, graceSeconds: number | undefined) => void
  onFailure: (message: string) => void
}): void {
  const { surroundings, signal } = options
  const { startupProbe, livenessProbe, readinessProbe } = surroundings.container
  const health: Health = { started: false, ready: false }
  const change = (news: Partial<Health>) => {
    const before = { ...health }
    Object.assign(health, news)
    if (before.started !== health.started || before.ready !== health.ready) {
      options.onChange({ ...health })
    }
  }

  function watch(
    kind: string,
    probe: V1Probe,
    onVerdict: (verdict: Verdict) => void,
  ): AbortController {
    const over = new AbortController()
    void watchProbe({
      probe,
      check: timeoutMs => act(probe, surroundings, timeoutMs),
      signal: AbortSignal.any([signal, over.signal]),
      onVerdict,
      onFailure: message => options.onFailure(`${kind} probe failed: ${message}`),
    })
    return over
  }

  function start(): void {
    change({ started: true, ready: readinessProbe === undefined })
    if (readinessProbe) {
      watch('Readiness', readinessProbe, verdict => change({ ready: verdict === 'passed' }))
    }
    if (livenessProbe) {
      const over = watch('Liveness', livenessProbe, verdict => {
        if (verdict === 'passed') return
        over.abort()
        options.onUnhealthy('failed liveness probe', livenessProbe.terminationGracePeriodSeconds)
      })
    }
  }

  if (!startupProbe) {
    start()
    return
  }
  const over = watch('Startup', startupProbe, verdict => {
    over.abort()
    if (verdict === 'passed') start()
    else {
      const { terminationGracePeriodSeconds } = startupProbe
      options.onUnhealthy('failed startup probe', terminationGracePeriodSeconds)
    }
  })
}

import { setTimeout as sleep } from 'node:timers/promises'
import type { V1ContainerState, V1ContainerStatus } from '@kubernetes/client-node'
import type { Program, RunningProcess } from '../../processes.ts'
import { act, type Surroundings } from './action.ts'
import { createBackOff } from './back-off.ts'
import { endContainer } from './end-container.ts'
import { watchHealth } from './health.ts'
import { outcome, restarts } from './outcome.ts'
import { type Say, startPatiently } from './start-patiently.ts'

export interface RunningContainer {
  status(): V1ContainerStatus
  pid(): number | undefined
  /** Resolves with the exit code when the container has ended for good. */
  readonly ended: Promise<number>
  /** Ends it for good; called again with less grace it hurries. */
  stop(graceMs: number): Promise<void>
}

export interface ContainerOptions {
  surroundings: Surroundings
  /** Throws a ConfigError where it cannot be started as things are. */
  launch: (attempt: number) => Promise<Program & { outputFile: string }>
  restart: 'Always' | 'OnFailure' | 'Never'
  graceMs: number
  backOffMs: { first: number; most: number }
  say: Say
  onChange: () => void
}

/** Starts a container and keeps it as its restart policy says, with its probes and hooks. */
export function runContainer(options: ContainerOptions): RunningContainer {
  const { surroundings, say, onChange } = options
  const { container } = surroundings
  const backOff = createBackOff(options.backOffMs.first, options.backOffMs.most)
  const stopping = new AbortController()
  const hurry = new AbortController()
  let current: RunningProcess | undefined
  let status: V1ContainerStatus = {
    name: container.name,
    image: container.image ?? '',
    imageID: container.image ?? '',
    ready: false,
    started: false,
    restartCount: 0,
    state: { waiting: { reason: 'ContainerCreating' } },
  }
  const set = (news: Partial<V1ContainerStatus>) => {
    status = { ...status, ...news }
    onChange()
  }
  const over = (ms: number) => sleep(ms, undefined, { signal: stopping.signal }).catch(() => {})
  const end = (program: RunningProcess, graceMs: number) =>
    endContainer({
      process: program,
      surroundings,
      graceMs,
      hurry: hurry.signal,
      onFailure: message => say('Warning', 'FailedPreStopHook', message),
    })

  async function once(program: RunningProcess, attempt: number): Promise<V1ContainerState> {
    const startedAt = new Date()
    const probing = new AbortController()
    current = program
    say('Normal', 'Started', `Container started: ${container.name}`)
    set({ restartCount: attempt, state: { running: { startedAt } } })
    // It was being started when the pod's end began.
    if (stopping.signal.aborted) void end(program, 0)
    const unhealthy = (message: string, graceSeconds?: number) => {
      say('Normal', 'Killing', `Container ${container.name} ${message}, will be restarted`)
      void end(program, graceSeconds === undefined ? options.graceMs : graceSeconds * 1000)
    }
    await act(container.lifecycle?.postStart ?? {}, surroundings, options.graceMs).catch(error =>
      unhealthy(`failed postStart hook: ${error.message}`),
    )
    watchHealth({
      surroundings,
      signal: probing.signal,
      onChange: set,
      onUnhealthy: unhealthy,
      onFailure: message => say('Warning', 'Unhealthy', message),
    })
    const ending = await program.ended
    probing.abort()
    const finishedAt = new Date()
    return { terminated: { ...outcome(ending, program, container), startedAt, finishedAt } }
  }

  async function beBackedOff(state: V1ContainerState, ranMs: number): Promise<void> {
    const waitMs = backOff.next(ranMs)
    set({ lastState: state })
    if (waitMs === 0) return
    const message = `back-off ${waitMs / 1000}s restarting failed container=${container.name}`
    say('Warning', 'BackOff', `Back-off restarting failed container ${container.name}`)
    set({ state: { waiting: { reason: 'CrashLoopBackOff', message } } })
    await over(waitMs)
  }

  async function run(): Promise<number> {
    let exitCode = 0
    for (let attempt = 0; ; attempt++) {
      const program = await startPatiently({
        launch: () => options.launch(attempt),
        stopping: stopping.signal,
        onWaiting: (reason, message) => set({ state: { waiting: { reason, message } } }),
        say,
      })
      if (!program) return exitCode
      const begun = performance.now()
      const state = await once(program, attempt)
      exitCode = state.terminated?.exitCode ?? 0
      set({ state, ready: false, started: false })
      if (stopping.signal.aborted || !restarts(options.restart, exitCode)) return exitCode
      await beBackedOff(state, performance.now() - begun)
    }
  }

  const ended = run()
  return {
    status: () => status,
    pid: () => (current?.running() ? current.pid : undefined),
    ended,
    async stop(graceMs) {
      if (stopping.signal.aborted && graceMs === 0) hurry.abort()
      stopping.abort()
      if (current) await end(current, graceMs)
      await ended
    },
  }
}

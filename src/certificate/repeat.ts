import type { Logger } from 'pino'

export interface Repeater {
  start(): void
  /** Once more, soon: now when it rests, else right after the run that is under way. */
  ring(): void
  /** Why the last run failed; undefined: it did not. */
  problem(): string | undefined
  /** Resolves when no run is under way any more, and none will be. */
  stop(): Promise<void>
}

export interface RepeaterOptions {
  /** Its errors are logged, and must therefore hold no secret. */
  task: () => Promise<void>
  everyMs: number
  /** Bells that ring without end make no hot loop. */
  leastMs: number
  /** For the log: what it means that a run failed. */
  failed: string
  logger: Logger
}

/**
 * Runs `task` again and again, one run at a time: `everyMs` after the last, or sooner when rung, but
 * not before `leastMs`. A failure is logged when it is another than that of the run before.
 */
export function createRepeater({ task, ...options }: RepeaterOptions): Repeater {
  const stopping = new AbortController()
  let bell = Promise.withResolvers<void>()
  let problem: string | undefined
  let running: Promise<void> | undefined

  async function runOnce(): Promise<void> {
    try {
      await task()
      problem = undefined
    } catch (error) {
      const { message } = error as Error
      if (message !== problem) options.logger.warn({ problem: message }, options.failed)
      problem = message
    }
  }
  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      bell = Promise.withResolvers()
      await runOnce()
      await rest(options.leastMs, stopping.signal)
      await rest(options.everyMs - options.leastMs, stopping.signal, bell.promise)
    }
  }
  return {
    start() {
      running ??= run()
    },
    ring: () => bell.resolve(),
    problem: () => problem,
    async stop() {
      stopping.abort()
      await running
    },
  }
}

/** Ends after `ms`, when stopped, or when the bell rings. */
async function rest(ms: number, stopped: AbortSignal, bell?: Promise<void>): Promise<void> {
  if (stopped.aborted) return
  const over = Promise.withResolvers<void>()
  const timer = setTimeout(over.resolve, ms)
  const end = () => over.resolve()
  stopped.addEventListener('abort', end)
  await Promise.race([over.promise, ...(bell ? [bell] : [])])
  clearTimeout(timer)
  stopped.removeEventListener('abort', end)
}

import { createSecureContext } from 'node:tls'
import type { Logger } from 'pino'
import { Counter, Gauge, type Registry } from 'prom-client'
import { CertificateError, type KeyPair, parseCertificate } from './certificate.ts'

/** Where the serving certificate comes from: files, or our own CA. */
export interface CertificateSource {
  /** Key and certificate (PEM) to serve with. Throws before `start` has resolved. */
  current(): KeyPair
  /** Called when there is another pair than before. */
  onChange(listener: () => void): void
  /** Whether the API server takes what is served: names, dates, key and chain. */
  ready(): boolean
  /** Sentences for people: why it is not ready, or what is not as it should be. No secret in them. */
  warnings(): string[]
  /** Resolves when there is a pair to serve with. */
  start(): Promise<void>
  stop(): Promise<void>
}

export interface ServedPair {
  /** undefined: none so far. */
  pair(): KeyPair | undefined
  current: CertificateSource['current']
  onChange: CertificateSource['onChange']
  /** Throws a CertificateError, and keeps the pair before, where OpenSSL or a listener refuses it. */
  set(pair: KeyPair): void
}

/**
 * Throws a CertificateError where OpenSSL refuses to serve with this pair: it has rules of its own,
 * e.g. for the length of a key. `title`: what the pair is called.
 */
export function checkServable({ key, cert }: KeyPair, title: string): void {
  try {
    createSecureContext({ key, cert })
  } catch (error) {
    throw new CertificateError(`OpenSSL refuses ${title}: ${reasonOf(error)}`)
  }
}

/** OpenSSL's own word, e.g. "ee key too small"; nothing that could hold a part of the key. */
function reasonOf(error: unknown): string {
  const { reason, code, name } = error as { reason?: string; code?: string; name?: string }
  return reason ?? code ?? name ?? 'unknown error'
}

/** The pair in use, those who want to know of another, and its end as a metric. */
export function createServedPair(metrics?: Registry): ServedPair {
  const listeners: (() => void)[] = []
  const meters = metrics && createMeters(metrics)
  let served: KeyPair | undefined
  return {
    pair: () => served,
    current() {
      if (!served) throw new Error('there is no serving certificate yet')
      return served
    },
    onChange: listener => void listeners.push(listener),
    set(pair) {
      checkServable(pair, 'the serving certificate')
      const before = served
      served = pair
      try {
        for (const listener of listeners) listener()
      } catch (error) {
        served = before
        throw new CertificateError(`the server refuses the certificate: ${reasonOf(error)}`)
      }
      meters?.end.set(parseCertificate(pair.cert).validToDate.getTime() / 1000)
      meters?.changes.inc()
    },
  }
}

function createMeters(metrics: Registry) {
  const registers = [metrics]
  return {
    end: new Gauge({
      name: 'pullpass_certificate_end_timestamp_seconds',
      help: 'When the serving certificate ends, in seconds since 1970',
      registers,
    }),
    changes: new Counter({
      name: 'pullpass_certificate_changes_total',
      help: 'Serving certificates taken into use, the first included',
      registers,
    }),
  }
}

interface Repeater {
  start(): void
  /** Once more, soon: now when it rests, else right after the run that is under way. */
  trigger(): void
  /** Why the last run failed; undefined: it did not. */
  problem(): string | undefined
  /** Resolves when no run is under way any more, and none will be. */
  stop(): Promise<void>
}

interface RepeaterOptions {
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
  let trigger = Promise.withResolvers<void>()
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
      trigger = Promise.withResolvers()
      await runOnce()
      await rest(options.leastMs, stopping.signal)
      await rest(options.everyMs - options.leastMs, stopping.signal, trigger.promise)
    }
  }
  return {
    start() {
      running ??= run()
    },
    trigger: () => trigger.resolve(),
    problem: () => problem,
    async stop() {
      stopping.abort()
      await running
    },
  }
}

/** Ends after `ms`, when stopped, or when the trigger rings. */
async function rest(ms: number, stopped: AbortSignal, trigger?: Promise<void>): Promise<void> {
  if (stopped.aborted) return
  const over = Promise.withResolvers<void>()
  const timer = setTimeout(over.resolve, ms)
  const end = () => over.resolve()
  stopped.addEventListener('abort', end)
  await Promise.race([over.promise, ...(trigger ? [trigger] : [])])
  clearTimeout(timer)
  stopped.removeEventListener('abort', end)
}

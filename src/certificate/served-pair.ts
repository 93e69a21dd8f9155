import { createSecureContext } from 'node:tls'
import type { Logger } from 'pino'
import { Counter, Gauge, type Registry } from 'prom-client'
import { inTime, type TimeLimit } from '../time-limit.ts'
import { CertificateError, type KeyPair, parseCertificate } from './certificate.ts'

/** The origin of the serving certificate: files, or our own CA. */
export interface CertificateSource {
  /** Key and certificate (PEM) to serve with. Throws before `start` has resolved. */
  current(): KeyPair
  /** Called when the pair changes. */
  onChange(listener: () => void): void
  /** Whether the API server accepts the pair: names, dates, key and chain. */
  ready(): boolean
  /** Sentences for people about what is wrong. They hold no secret. */
  warnings(): string[]
  /** Resolves when there is a pair to serve with. */
  start(): Promise<void>
  stop(): Promise<void>
}

export interface ServedPair {
  /** Undefined: none so far. */
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

/** The pair in use, its listeners, and its end as a metric. */
export function createServedPair(metrics: Registry): ServedPair {
  const listeners: (() => void)[] = []
  const meters = createMeters(metrics)
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
      meters.end.set(parseCertificate(pair.cert).validToDate.getTime() / 1000)
      meters.changes.inc()
    },
  }
}

function createMeters(metrics: Registry) {
  const registers = [metrics]
  return {
    end: new Gauge({
      name: 'pullpass_certificate_end_timestamp_seconds',
      help: 'Expiry of the serving certificate, in seconds since 1970',
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
  /** Runs soon: now if none is running, else right after it. */
  trigger(): void
  /** Why the last run failed; undefined: it succeeded. */
  problem(): string | undefined
  /** Resolves when the last run has ended. */
  stop(): Promise<void>
}

interface RepeaterDependencies {
  /** Its errors are logged, so they must hold no secret. */
  task: () => Promise<void>
  logger: Logger
}

interface RepeaterSettings {
  everyMs: number
  /** Shortest pause, however often it is triggered. */
  leastMs: number
  /** The log message for a failed run. */
  failed: string
}

/**
 * Repeats `task`, one run at a time: `everyMs` after the last, or sooner when triggered, but not
 * before `leastMs`. Logs a failure unless the run before failed in the same way.
 */
export function createRepeater(
  { task, logger }: RepeaterDependencies,
  { everyMs, leastMs, failed }: RepeaterSettings,
): Repeater {
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
      if (message !== problem) logger.warn({ problem: message }, failed)
      problem = message
    }
  }
  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      trigger = Promise.withResolvers()
      await runOnce()
      const { signal } = stopping
      await pause({ ms: leastMs, signal })
      await pause({ ms: everyMs - leastMs, signal }, trigger.promise)
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

/** Ends at the limit or with `sooner`. */
async function pause(limit: TimeLimit, sooner = new Promise<void>(() => {})): Promise<void> {
  await inTime(sooner, limit).catch(() => {})
}

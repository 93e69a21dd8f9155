import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'

/**
 * The clock of the API server, estimated from its answers. It decides which certificates are valid,
 * and all replicas share it.
 */
export interface ServerClock {
  /** The time of the API server where it is measured and ours is more than seconds off, else ours. */
  now(): Date
  /** The clock of this machine. */
  local(): Date
  /** Whether enough answers have arrived to trust the difference. Stays true. */
  isMeasured(): boolean
  /** The sentence to report while the clocks are more than a minute apart. */
  problem(): string | undefined
  /**
   * An answer has arrived. `date`: its Date header. `startedMs`: when the request left, by
   * performance.now().
   */
  observe(date: unknown, startedMs: number): void
}

/** Number of last answers in the median. */
const SAMPLES = 5
/** From this number on, answers count even if they contradict the clock of this machine. */
const CONVINCING = 3
/** The header has whole seconds, and an answer takes time. */
const NOISE_MS = 5000
/** A slower answer is too inexact. */
const SLOWEST_MS = 10_000
const PROBLEM_MS = 60_000
/** A change of the difference by more is reported again. */
const CHANGE_MS = 30_000

/**
 * Compares the API server's time with the monotonic clock, not with the wall clock: when the clock of
 * this machine is set, the difference is known at once, without another answer. The median of the
 * last answers counts, since one of several API servers, or a proxy, may be wrong.
 */
export function createServerClock(options: {
  logger: Logger
  metrics: Registry
  wallClock?: () => number
  monotonic?: () => number
}): ServerClock {
  const { logger, metrics, wallClock = Date.now } = options
  const monotonic = options.monotonic ?? performance.now.bind(performance)
  /** Of each of the last answers: the time of the API server when `monotonic` was 0. */
  let samples: number[] = []
  let measured = false
  const serverMs = () => monotonic() + median(samples)
  const aheadMs = () => wallClock() - serverMs()
  const report = createReport(logger)
  countDifference(metrics, () => (measured ? aheadMs() : 0))
  return {
    now() {
      const isUsable = !measured || Math.abs(aheadMs()) <= NOISE_MS
      return new Date(isUsable ? wallClock() : serverMs())
    },
    local: () => new Date(wallClock()),
    isMeasured: () => measured,
    problem: () => (measured ? report(aheadMs()) : undefined),
    observe(date, startedMs) {
      const endedMs = monotonic()
      const said = Date.parse(String(date))
      if (Number.isNaN(said) || endedMs - startedMs > SLOWEST_MS) return
      // Within the second that the header names, and on the way there or back.
      samples = [...samples, said + 500 - (startedMs + endedMs) / 2].slice(-SAMPLES)
      measured ||= samples.length >= CONVINCING || Math.abs(aheadMs()) <= PROBLEM_MS
      if (measured) report(aheadMs())
    },
  }
}

/** Logs each change of the difference, and returns the sentence for it. */
function createReport(logger: Logger): (aheadMs: number) => string | undefined {
  let reported: number | undefined
  return aheadMs => {
    const before = reported
    reported = differenceToReport(before, aheadMs)
    const sentence = reported === undefined ? undefined : sentenceOf(reported)
    if (reported === before) return sentence
    const aheadSeconds = Math.round(aheadMs / 1000)
    if (sentence) logger.warn({ aheadSeconds }, sentence)
    else logger.info({ aheadSeconds }, "the clock agrees with the API server's again")
    return sentence
  }
}

/** The upper one of the two in the middle. */
function median(numbers: number[]): number {
  const sorted = [...numbers].sort((one, other) => one - other)
  return sorted[Math.floor(sorted.length / 2)] ?? 0
}

/** Keeps the reported difference while it is nearly right, so that small changes are not reported. */
function differenceToReport(reported: number | undefined, aheadMs: number): number | undefined {
  if (reported !== undefined && Math.abs(aheadMs - reported) <= CHANGE_MS) return reported
  return Math.abs(aheadMs) > PROBLEM_MS ? aheadMs : undefined
}

function sentenceOf(aheadMs: number): string {
  const side = aheadMs > 0 ? 'ahead of' : 'behind'
  return `this replica's clock is ${spanOf(Math.abs(aheadMs))} ${side} the API server's`
}

function spanOf(ms: number): string {
  const minutes = Math.round(ms / 60_000)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.round(ms / 360_000) / 10
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`
}

function countDifference(metrics: Registry, aheadMs: () => number): void {
  new Gauge({
    name: 'pullpass_clock_offset_seconds',
    help: "How far this replica's clock is ahead of the API server's (negative: behind); 0 while unknown",
    registers: [metrics],
    collect() {
      this.set(Math.round(aheadMs() / 1000))
    },
  })
}

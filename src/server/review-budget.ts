/** How long an answer may take, from what the API server says in `?timeout=`. */

/** timeoutSeconds where the webhook's configuration does not say (admissionregistration/v1). */
const DEFAULT_TIMEOUT_MS = 10_000
/** The longest timeoutSeconds that a webhook may have; a longer one does not come from the API server. */
const LONGEST_TIMEOUT_MS = 30_000
/** For the way back, and for dialling, which the API server's clock includes and ours does not. */
const MARGIN_SHARE = 0.2
const LONGEST_MARGIN_MS = 1000

const LONGEST_DURATION = 64
const TERM = /([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)/g
const DURATION = new RegExp(`^(?:${TERM.source})+$`)

const MS_PER_UNIT: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
}

/** Milliseconds left for a review, `elapsedMs` after it began to arrive; never below 0. */
export function reviewBudgetMs(timeout: unknown, elapsedMs: number): number {
  const given = typeof timeout === 'string' ? parseDurationMs(timeout) : undefined
  const total = Math.min(given ?? DEFAULT_TIMEOUT_MS, LONGEST_TIMEOUT_MS)
  const margin = Math.min(total * MARGIN_SHARE, LONGEST_MARGIN_MS)
  return Math.max(0, Math.floor(total - margin - elapsedMs))
}

/**
 * Milliseconds of a duration as Go writes it: `4.998s`, `500ms`, `1m0s`; undefined for anything else.
 *
 *   duration := '0' | ( decimal unit )+     unit := ns | us | µs | ms | s | m | h
 */
export function parseDurationMs(text: string): number | undefined {
  if (text === '0') return 0
  if (text.length > LONGEST_DURATION || !DURATION.test(text)) return undefined
  return [...text.matchAll(TERM)].reduce(
    (sum, [, decimal, unit]) => sum + Number(decimal) * (MS_PER_UNIT[unit ?? ''] ?? 0),
    0,
  )
}

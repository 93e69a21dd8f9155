import { Counter, Histogram, type Registry } from 'prom-client'
import { type CloseReason, closeReasons } from './connections.ts'
import { outcomes } from './decision.ts'

/** Those of the API server, so that both sides can be compared (pkg/admission/metrics/metrics.go). */
const BUCKETS = [0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 25]

const ownOutcomes = ['not_ready', 'unusable_review', 'too_large', 'too_many', 'cut_off', 'bug']

export interface ReviewMetrics {
  count(outcome: string): void
  countClosed(reason: CloseReason): void
  /** From the arrival of a request to the end of its answer. */
  observe(elapsedMs: number): void
  countFailedHandshake(): void
}

/** The metrics of the webhook. Times are milliseconds. */
export function createReviewMetrics(registry: Registry): ReviewMetrics {
  const registers = [registry]
  const reviews = new Counter({
    name: 'pullpass_admission_reviews_total',
    help: 'Admission requests answered, by outcome',
    labelNames: ['outcome'],
    registers,
  })
  const seconds = new Histogram({
    name: 'pullpass_admission_review_seconds',
    help: 'Time from the arrival of an admission request to the end of its answer',
    buckets: BUCKETS,
    registers,
  })
  const handshakes = new Counter({
    name: 'pullpass_admission_failed_handshakes_total',
    help: 'Failed TLS handshakes; if they are many, the API server does not trust the certificate',
    registers,
  })
  const closed = new Counter({
    name: 'pullpass_admission_connections_closed_total',
    help: 'Connections to the webhook that were closed because of a limit, by reason',
    labelNames: ['reason'],
    registers,
  })
  for (const outcome of [...outcomes, ...ownOutcomes]) reviews.inc({ outcome }, 0)
  for (const reason of closeReasons) closed.inc({ reason }, 0)
  return {
    countClosed: reason => closed.inc({ reason }),
    count: outcome => reviews.inc({ outcome }),
    observe: elapsedMs => seconds.observe(elapsedMs / 1000),
    countFailedHandshake: () => handshakes.inc(),
  }
}

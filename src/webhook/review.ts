import { isNamespaceName } from '../names.ts'
import {
  displayNameOf,
  isObject,
  type JsonObject,
  objectOf,
  serviceAccountOf,
  textOf,
} from './pod.ts'

/** What pullpass reads of an AdmissionReview (kubernetes/api admission/v1/types.go). */
export interface Review {
  uid: string
  /** From the request: the pod itself may not have its namespace yet. */
  namespace: string
  /** For people only: `web-1`, or `web-*` where the API server has not generated the name yet. */
  name: string
  /** The raw object; empty where the request has none (a deletion). */
  pod: JsonObject
  dryRun: boolean
  /** `CREATE`, `UPDATE`, `DELETE` or `CONNECT`. */
  operation: string
  /** `ephemeralcontainers` and the like; undefined for the pod itself. */
  subResource: string | undefined
  serviceAccount: string
}

const LONGEST_UID = 256
const LONGEST_NAME = 253

/** The review in the body of a request, or why it is not one. Checks only the fields that are read. */
export function readReview(body: unknown): Review | { problem: string } {
  const envelope = objectOf(body)
  const request = objectOf(envelope.request)
  const problem = problemOfEnvelope(envelope) ?? problemOfRequest(request)
  if (problem !== undefined) return { problem }
  const pod = objectOf(request.object)
  return {
    uid: String(request.uid),
    namespace: String(request.namespace),
    name: (displayNameOf(pod) ?? textOf(request.name) ?? '(unnamed)').slice(0, LONGEST_NAME),
    pod,
    dryRun: request.dryRun === true,
    operation: String(request.operation),
    subResource: textOf(request.subResource),
    serviceAccount: serviceAccountOf(pod).slice(0, LONGEST_NAME),
  }
}

function problemOfEnvelope(envelope: JsonObject): string | undefined {
  if (envelope.kind !== 'AdmissionReview') return 'the body is not an AdmissionReview'
  if (envelope.apiVersion !== 'admission.k8s.io/v1') {
    return 'the AdmissionReview is not of admission.k8s.io/v1'
  }
  return isObject(envelope.request) ? undefined : 'the AdmissionReview has no request'
}

function problemOfRequest(request: JsonObject): string | undefined {
  const uid = textOf(request.uid)
  if (uid === undefined || uid.length > LONGEST_UID) return 'the request has no usable uid'
  if (!isPodKind(objectOf(request.kind))) return 'the request is not about a Pod of core/v1'
  if (textOf(request.operation) === undefined) return 'the request has no operation'
  if (!isNamespaceName(textOf(request.namespace) ?? '')) return 'the request names no namespace'
  if (request.operation === 'CREATE' && !isObject(request.object)) return 'the request has no pod'
  return undefined
}

function isPodKind(kind: JsonObject): boolean {
  const group = kind.group ?? ''
  return group === '' && kind.version === 'v1' && kind.kind === 'Pod'
}

/* How long an answer may take: the API server sends its limit as `?timeout=`. */

/** timeoutSeconds where the webhook's configuration does not say (admissionregistration/v1). */
const DEFAULT_TIMEOUT_MS = 10_000
/** The maximum of timeoutSeconds; a longer one does not come from the API server. */
const LONGEST_TIMEOUT_MS = 30_000
/** For the connection and the answer, which the API server's timeout includes. */
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

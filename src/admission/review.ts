import { isObject, type JsonObject, objectOf, textOf } from './json.ts'
import { displayNameOf, serviceAccountOf } from './pod.ts'

/** What pullpass reads of an AdmissionReview (kubernetes/api admission/v1/types.go). */
export interface Review {
  uid: string
  /** The request's: the pod itself may not name its namespace yet. */
  namespace: string
  /** For people only: `web-1`, or `web-*` where the API server has yet to make the name. */
  name: string
  /** The raw object; empty where the request carries none (a deletion). */
  pod: JsonObject
  dryRun: boolean
  /** `CREATE`, `UPDATE`, `DELETE` or `CONNECT`. */
  operation: string
  /** `ephemeralcontainers` and the like; undefined for the pod itself. */
  subResource: string | undefined
  serviceAccount: string
}

const NAMESPACE = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/
const LONGEST_UID = 256
const LONGEST_NAME = 253

/** The review in a request's body, or why it is none. Checks what is read and no more. */
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
  if (!NAMESPACE.test(textOf(request.namespace) ?? '')) return 'the request names no namespace'
  if (request.operation === 'CREATE' && !isObject(request.object)) return 'the request has no pod'
  return undefined
}

function isPodKind(kind: JsonObject): boolean {
  const group = kind.group ?? ''
  return group === '' && kind.version === 'v1' && kind.kind === 'Pod'
}

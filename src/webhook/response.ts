import type { Decision } from './decision.ts'
import { isObject, type JsonObject, namesPullSecret, objectOf } from './pod.ts'

/** An AdmissionReview with its response. Each function below returns a complete one. */
export interface AdmissionAnswer {
  apiVersion: 'admission.k8s.io/v1'
  kind: 'AdmissionReview'
  response: {
    uid: string
    allowed: true
    patchType?: 'JSONPatch'
    /** base64 of the JSON Patch. */
    patch?: string
    warnings?: string[]
    /** In the audit log as `<webhook name>/decision` and `<webhook name>/reason`. */
    auditAnnotations: Record<string, string>
  }
}

/** A longer one may be cut by the API server. */
const LONGEST_WARNING = 256

/** The pod unchanged. The API server shows `warnings` to the client that creates it. */
export function allowed(uid: string, decision: Decision, warnings: string[] = []): AdmissionAnswer {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid,
      allowed: true,
      ...(warnings.length > 0 && { warnings: warnings.map(warning) }),
      auditAnnotations: auditAnnotations(decision),
    },
  }
}

/** The pod with a patch; without operations there is no patch. */
export function patched(
  uid: string,
  decision: Decision,
  operations: AddOperation[],
  warnings: string[] = [],
): AdmissionAnswer {
  const answer = allowed(uid, decision, warnings)
  if (operations.length === 0) return answer
  const patch = Buffer.from(JSON.stringify(operations)).toString('base64')
  return { ...answer, response: { ...answer.response, patchType: 'JSONPatch', patch } }
}

/**
 * A text for a `Warning` header: the API server drops one with control characters, and may cut a
 * longer one (kubernetes/apiserver pkg/endpoints/filters/warning.go).
 */
export function warning(text: string): string {
  const line = text
    .replace(/\s+/g, ' ')
    .trim()
    .replace(/[^\x20-\x7e]/gu, '?')
  if (line.length <= LONGEST_WARNING) return line
  const room = LONGEST_WARNING - '...'.length
  const space = line.lastIndexOf(' ', room)
  return `${line.slice(0, space > 0 ? space : room)}...`
}

function auditAnnotations(decision: Decision): Record<string, string> {
  return decision.action === 'leave'
    ? { decision: decision.action, reason: decision.reason }
    : { decision: decision.action }
}

/** The one operation of RFC 6902 that pullpass sends. */
export interface AddOperation {
  op: 'add'
  path: string
  value: unknown
}

/**
 * Adds a reference to the pod's pull secrets; existing entries keep their order.
 *
 * | spec.imagePullSecrets                | operation                                    |
 * |--------------------------------------|----------------------------------------------|
 * | names the Secret                     | none                                         |
 * | has entries, named or not            | add `/spec/imagePullSecrets/-`               |
 * | absent, null, empty, or no list      | add `/spec/imagePullSecrets` with one entry  |
 *
 * The API server rejects a pod whose patch does not apply, whatever the failurePolicy. So there is no
 * `test`, and no `/-` where the list may be missing.
 */
export function addPullSecret(pod: JsonObject, secretName: string): AddOperation[] {
  if (!isObject(pod.spec) || namesPullSecret(pod, secretName)) return []
  const present = objectOf(pod.spec).imagePullSecrets
  const entry = { name: secretName }
  return Array.isArray(present) && present.length > 0
    ? [{ op: 'add', path: '/spec/imagePullSecrets/-', value: entry }]
    : [{ op: 'add', path: '/spec/imagePullSecrets', value: [entry] }]
}

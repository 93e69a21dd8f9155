import { isObject, type JsonObject, objectOf } from './json.ts'
import { namesPullSecret } from './pod.ts'

/** The one operation of RFC 6902 that pullpass sends. */
export interface AddOperation {
  op: 'add'
  path: string
  value: unknown
}

/**
 * Adds a reference to the pod's pull secrets; what is there stays, in its order.
 *
 * | spec.imagePullSecrets                | operation                                    |
 * |--------------------------------------|----------------------------------------------|
 * | names the Secret                     | none                                         |
 * | has entries, named or not            | add `/spec/imagePullSecrets/-`               |
 * | absent, null, empty, or no list      | add `/spec/imagePullSecrets` with one entry  |
 *
 * A patch that does not apply gets the pod rejected whatever the failurePolicy says. So there is no
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

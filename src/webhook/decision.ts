import { neverServedWith } from '../names.ts'
import { isFromRegistry } from './image-reference.ts'
import { imagesOf, isMirrorPod, namesPullSecret, optsOut } from './pod.ts'
import type { Review } from './review.ts'

/**
 * The decision about a pod is the first row that fits:
 *
 * | review, pod, namespace                           | action | reason                     |
 * |--------------------------------------------------|--------|----------------------------|
 * | not the creation of a pod                        | leave  | not_a_pod_creation         |
 * | kube-system, kube-node-lease, release namespace  | leave  | namespace_never_served     |
 * | no image of our registry, or none that parses    | leave  | no_private_image           |
 * | mirror pod: with a reference it is rejected      | leave  | mirror_pod                 |
 * | labelled `pullpass.io/inject: disabled`, `false` | leave  | opted_out                  |
 * | its namespace is not opted in                    | leave  | namespace_not_opted_in     |
 * | already names our Secret                         | ensure |                            |
 * | its ServiceAccount limits the Secrets of its     | leave  | mountable_secrets_enforced |
 * | pods, without ours                               |        |                            |
 * | else                                             | inject |                            |
 *
 * `ensure`: the pod stays unchanged, and the Secret must exist. The pod comes first: a pod without an
 * image of our registry costs no look-up.
 */
export type Decision = { action: 'leave'; reason: LeaveReason } | { action: 'ensure' | 'inject' }

const leaveReasons = [
  'not_a_pod_creation',
  'namespace_never_served',
  'no_private_image',
  'mirror_pod',
  'opted_out',
  'namespace_not_opted_in',
  'mountable_secrets_enforced',
] as const

type LeaveReason = (typeof leaveReasons)[number]

/** Every outcome that `outcomeOf` gives. */
export const outcomes: readonly string[] = [
  ...leaveReasons,
  'injected',
  'injected_without_secret',
  'named_already',
  'named_already_without_secret',
]

export interface DecisionRules {
  /** host[:port], as images name it. */
  registryHost: string
  secretName: string
  /** The namespace that pullpass itself runs in. */
  releaseNamespace: string
}

/** The decision by the review alone. */
export function decide(review: Review, rules: DecisionRules): Decision {
  if (review.operation !== 'CREATE' || review.subResource !== undefined) {
    return leave('not_a_pod_creation')
  }
  if (neverServedWith(rules.releaseNamespace).has(review.namespace)) {
    return leave('namespace_never_served')
  }
  const isOurs = (image: string) => isFromRegistry(image, rules.registryHost)
  if (!imagesOf(review.pod).some(isOurs)) return leave('no_private_image')
  if (isMirrorPod(review.pod)) return leave('mirror_pod')
  if (optsOut(review.pod)) return leave('opted_out')
  return { action: namesPullSecret(review.pod, rules.secretName) ? 'ensure' : 'inject' }
}

/** The decision, given whether the pod's namespace is opted in. */
export function decideByNamespace(decision: Decision, optedIn: boolean): Decision {
  return decision.action === 'leave' || optedIn ? decision : leave('namespace_not_opted_in')
}

/**
 * The decision, given the Secrets to which the ServiceAccount limits its pods; undefined: it does not
 * (annotation `kubernetes.io/enforce-mountable-secrets`, kubernetes/kubernetes
 * plugin/pkg/admission/serviceaccount). A pod that already names our Secret is left to the API server.
 */
export function decideByServiceAccount(
  decision: Decision,
  mountable: readonly string[] | undefined,
  secretName: string,
): Decision {
  if (decision.action !== 'inject') return decision
  const forbidden = mountable !== undefined && !mountable.includes(secretName)
  return forbidden ? leave('mountable_secrets_enforced') : decision
}

/** The result for a pod, as a word for metrics and logs. */
export function outcomeOf(decision: Decision, secretIsThere: boolean): string {
  if (decision.action === 'leave') return decision.reason
  const outcome = decision.action === 'inject' ? 'injected' : 'named_already'
  return secretIsThere ? outcome : `${outcome}_without_secret`
}

function leave(reason: LeaveReason): Decision {
  return { action: 'leave', reason }
}

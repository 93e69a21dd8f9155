import type { V1Pod, V1PodSpec } from '@kubernetes/client-node'

export const image = 'registry.dedicated.example.com/acme/hello:1'
export const elsewhere = 'docker.io/library/busybox:1'
export const reference = { name: 'pullpass-registry' }

/** A pod with one container; `spec` and `metadata` are added to it. */
export function pod(name: string, spec: object = {}, metadata: object = {}): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, ...metadata },
    spec: { containers: [{ name: 'main', image }], ...spec } as V1PodSpec,
  }
}

/** The names of the pull secrets of a pod, in order. */
export function references({ spec }: V1Pod): (string | undefined)[] {
  return (spec?.imagePullSecrets ?? []).map(({ name }) => name)
}

/** A review of the creation of the pod, as the API server sends it; `request` overrides its fields. */
export function reviewOf(namespace: string, object: unknown, request: object = {}) {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: crypto.randomUUID(),
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      namespace,
      operation: 'CREATE',
      dryRun: false,
      object,
      ...request,
    },
  }
}

import type { V1Container, V1Pod } from '@kubernetes/client-node'

/** What a pod may ask about itself while its status is being made. */
export interface PodFacts {
  pod: V1Pod
  podIP: string
  nodeName: string
  hostIP: string
}

/**
 * The value of a `fieldRef`; undefined where the path is not one.
 *
 * | path                                         | note                        |
 * |----------------------------------------------|-----------------------------|
 * | metadata.name .namespace .uid                |                             |
 * | metadata.labels['k'] metadata.annotations['k'] | '' where absent           |
 * | metadata.labels metadata.annotations         | volumes only: k="v" lines   |
 * | spec.nodeName spec.serviceAccountName        |                             |
 * | status.podIP .podIPs .hostIP .hostIPs        |                             |
 */
export function fieldValue(fieldPath: string, facts: PodFacts): string | undefined {
  const { metadata = {}, spec } = facts.pod
  const subscript = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(fieldPath)
  if (subscript)
    return metadata[subscript[1] as 'labels' | 'annotations']?.[subscript[2] ?? ''] ?? ''
  const values: Record<string, string | undefined> = {
    'metadata.name': metadata.name,
    'metadata.namespace': metadata.namespace,
    'metadata.uid': metadata.uid,
    'metadata.labels': lines(metadata.labels),
    'metadata.annotations': lines(metadata.annotations),
    'spec.nodeName': facts.nodeName,
    'spec.serviceAccountName': spec?.serviceAccountName ?? 'default',
    'status.podIP': facts.podIP,
    'status.podIPs': facts.podIP,
    'status.hostIP': facts.hostIP,
    'status.hostIPs': facts.hostIP,
  }
  return values[fieldPath]
}

/**
 * The value of a `resourceFieldRef` such as limits.memory; undefined where nothing is set or the
 * path is not one.
 */
export function resourceValue(
  resource: string,
  divisor: string | undefined,
  container: V1Container,
): string | undefined {
  const [kind, name] = resource.split('.') as ['limits' | 'requests', string]
  const quantity = container.resources?.[kind]?.[name] ?? container.resources?.limits?.[name]
  if (quantity === undefined) return undefined
  const unit = divisor === undefined || divisor === '0' ? '1' : divisor
  return String(Math.ceil(amount(quantity) / amount(unit)))
}

const SUFFIXES: Record<string, number> = {
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
}

function amount(quantity: string): number {
  const [, digits = '', suffix = ''] = /^([\d.]+)([a-zA-Z]*)$/.exec(quantity) ?? []
  return Number(digits) * (SUFFIXES[suffix] ?? 1)
}

function lines(map: Record<string, string> = {}): string {
  return Object.entries(map)
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join('\n')
}

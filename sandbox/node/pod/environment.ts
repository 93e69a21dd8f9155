import type { V1Container, V1EnvFromSource, V1EnvVar, V1Service } from '@kubernetes/client-node'
import { ConfigError } from './config-error.ts'
import { fieldValue, type PodFacts, resourceValue } from './fields.ts'

/**
 * What a namespace holds that a pod may refer to; undefined where it is not there. Secrets are
 * decoded.
 */
export interface Lookup {
  configMap(name: string): Record<string, Buffer> | undefined
  secret(name: string): Record<string, Buffer> | undefined
}

type Variables = Record<string, string>

/**
 * The variables of a container on top of `given`: envFrom in order, then env in order, each able
 * to use those before it as $(NAME). Throws a ConfigError where something that is not optional is
 * missing.
 */
export function environmentOf(
  container: V1Container,
  given: Variables,
  facts: PodFacts,
  lookup: Lookup,
): Variables {
  const variables = { ...given }
  for (const source of container.envFrom ?? []) Object.assign(variables, fromSource(source, lookup))
  for (const variable of container.env ?? []) {
    const value = valueFor(variable, { variables, container, facts, lookup })
    if (value !== undefined) variables[variable.name] = value
  }
  return variables
}

/**
 * Replaces $(NAME) by the variable's value; $$ stands for $ and so escapes a reference; a name
 * that is not there is left as it is written (kubernetes/kubernetes
 * third_party/forked/golang/expansion).
 */
export function expand(text: string, variables: Variables): string {
  return text.replace(/\$\$|\$\(([^()]*)\)/g, (whole, name) => {
    if (whole === '$$') return '$'
    return variables[name] ?? whole
  })
}

/**
 * The variables for the Services of the namespace, as the kubelet sets them (docs:
 * "Discovering services").
 */
export function serviceLinks(services: V1Service[]): Variables {
  const variables: Variables = {}
  for (const { metadata, spec } of services) {
    const ip = spec?.clusterIP
    const first = spec?.ports?.[0]
    if (!ip || ip === 'None' || !first) continue
    const name = (metadata?.name ?? '').toUpperCase().replaceAll('-', '_')
    variables[`${name}_SERVICE_HOST`] = ip
    variables[`${name}_SERVICE_PORT`] = String(first.port)
    variables[`${name}_PORT`] = `tcp://${ip}:${first.port}`
  }
  return variables
}

function fromSource({ prefix = '', configMapRef, secretRef }: V1EnvFromSource, lookup: Lookup) {
  const [kind, ref, data] = configMapRef
    ? (['ConfigMap', configMapRef, lookup.configMap(configMapRef.name ?? '')] as const)
    : (['Secret', secretRef, lookup.secret(secretRef?.name ?? '')] as const)
  if (data === undefined && !ref?.optional)
    throw new ConfigError(`${kind} ${ref?.name} is not there`)
  return Object.fromEntries(
    Object.entries(data ?? {}).map(([key, value]) => [`${prefix}${key}`, value.toString()]),
  )
}

function valueFor(
  { name, value, valueFrom }: V1EnvVar,
  from: { variables: Variables; container: V1Container; facts: PodFacts; lookup: Lookup },
): string | undefined {
  if (!valueFrom) return expand(value ?? '', from.variables)
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = valueFrom
  if (configMapKeyRef) {
    return keyOf('ConfigMap', configMapKeyRef, from.lookup.configMap(configMapKeyRef.name ?? ''))
  }
  if (secretKeyRef)
    return keyOf('Secret', secretKeyRef, from.lookup.secret(secretKeyRef.name ?? ''))
  const found = fieldRef
    ? fieldValue(fieldRef.fieldPath, from.facts)
    : resourceFieldRef &&
      resourceValue(resourceFieldRef.resource, resourceFieldRef.divisor, from.container)
  if (found === undefined)
    throw new ConfigError(`env ${name}: this node does not support its valueFrom`)
  return found
}

function keyOf(
  kind: string,
  ref: { name?: string; key: string; optional?: boolean },
  data: Record<string, Buffer> | undefined,
): string | undefined {
  const value = data?.[ref.key]
  if (value !== undefined) return value.toString()
  if (ref.optional) return undefined
  throw new ConfigError(`${kind} ${ref.name} ${data ? `has no key ${ref.key}` : 'is not there'}`)
}

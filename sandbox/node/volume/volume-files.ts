import type {
  V1DownwardAPIVolumeFile,
  V1KeyToPath,
  V1Volume,
  V1VolumeProjection,
} from '@kubernetes/client-node'
import { ConfigError } from '../pod/config-error.ts'
import type { Lookup } from '../pod/environment.ts'
import { fieldValue, type PodFacts, resourceValue } from '../pod/fields.ts'
import type { VolumeFile } from './atomic-folder.ts'

type Files = Map<string, VolumeFile>

/**
 * What a volume's files are made of: the namespace's objects, the pod, and a text for each token it
 * asks for.
 */
export interface VolumeSources {
  lookup: Lookup
  facts: PodFacts
  token(projection: NonNullable<V1VolumeProjection['serviceAccountToken']>): string
}

/**
 * The files a volume shall show; undefined for an emptyDir, which is the pod's own.
 * Throws a ConfigError where something that is not optional is missing.
 */
export function filesOf(volume: V1Volume, sources: VolumeSources): Files | undefined {
  if (volume.emptyDir) return undefined
  if (volume.configMap) {
    return fromConfigMap(volume.configMap, volume.configMap.defaultMode, sources)
  }
  if (volume.secret) {
    const { secretName = '', ...rest } = volume.secret
    return fromSecret({ ...rest, name: secretName }, volume.secret.defaultMode, sources)
  }
  if (volume.downwardAPI) {
    return fromPod(volume.downwardAPI.items, volume.downwardAPI.defaultMode, sources)
  }
  const { sources: projections = [], defaultMode } = volume.projected ?? {}
  const all = projections.map(projection => fromProjection(projection, defaultMode, sources))
  return new Map(all.flatMap(files => [...files]))
}

interface Reference {
  name?: string
  items?: V1KeyToPath[]
  optional?: boolean
}

function fromProjection(
  projection: V1VolumeProjection,
  mode: number | undefined,
  sources: VolumeSources,
): Files {
  const { configMap, secret, downwardAPI, serviceAccountToken } = projection
  if (configMap) return fromConfigMap(configMap, mode, sources)
  if (secret) return fromSecret(secret, mode, sources)
  if (downwardAPI) return fromPod(downwardAPI.items, mode, sources)
  if (!serviceAccountToken) return new Map()
  const content = Buffer.from(sources.token(serviceAccountToken))
  return new Map([[serviceAccountToken.path, { content, mode: mode ?? 0o644 }]])
}

function fromConfigMap(ref: Reference, mode: number | undefined, { lookup }: VolumeSources): Files {
  return pick(`ConfigMap ${ref.name}`, lookup.configMap(ref.name ?? ''), ref, mode)
}

function fromSecret(ref: Reference, mode: number | undefined, { lookup }: VolumeSources): Files {
  return pick(`Secret ${ref.name}`, lookup.secret(ref.name ?? ''), ref, mode)
}

function pick(
  what: string,
  data: Record<string, Buffer> | undefined,
  { items, optional }: Reference,
  mode = 0o644,
): Files {
  if (data === undefined && !optional) throw new ConfigError(`${what} is not there`)
  const wanted: V1KeyToPath[] = items ?? Object.keys(data ?? {}).map(key => ({ key, path: key }))
  const files: Files = new Map()
  for (const item of wanted) {
    const content = data?.[item.key]
    if (content) files.set(item.path, { content, mode: item.mode ?? mode })
    else if (!optional) throw new ConfigError(`${what} has no key ${item.key}`)
  }
  return files
}

function fromPod(
  items: V1DownwardAPIVolumeFile[] = [],
  mode = 0o644,
  { facts }: VolumeSources,
): Files {
  return new Map(
    items.map(item => {
      const value = downwardValue(item, facts)
      if (value === undefined) {
        throw new ConfigError(`downwardAPI ${item.path}: this node does not support it`)
      }
      return [item.path, { content: Buffer.from(value), mode: item.mode ?? mode }]
    }),
  )
}

function downwardValue(
  { fieldRef, resourceFieldRef }: V1DownwardAPIVolumeFile,
  facts: PodFacts,
): string | undefined {
  if (fieldRef) return fieldValue(fieldRef.fieldPath, facts)
  const container = facts.pod.spec?.containers.find(
    ({ name }) => name === resourceFieldRef?.containerName,
  )
  if (!resourceFieldRef || !container) return undefined
  return resourceValue(resourceFieldRef.resource, resourceFieldRef.divisor, container)
}

import { injectLabel } from '../names.ts'

/** The parts of a pod that pullpass reads, from the raw object: unknown fields survive. */

export const MIRROR_ANNOTATION = 'kubernetes.io/config.mirror'

/**
 * Every image that the kubelet pulls for a pod with the pod's pull secrets, each once:
 *
 * | where                               | since                                            |
 * |-------------------------------------|--------------------------------------------------|
 * | spec.containers[].image             | always                                           |
 * | spec.initContainers[].image         | always                                           |
 * | spec.ephemeralContainers[].image    | 1.25; not at creation                            |
 * | spec.volumes[].image.reference      | on by default from 1.35 (KEP-4639)               |
 */
export function imagesOf(pod: JsonObject): string[] {
  const spec = objectOf(pod.spec)
  const containers = [spec.containers, spec.initContainers, spec.ephemeralContainers]
  const images = [
    ...containers.flatMap(objectsOf).map(container => container.image),
    ...objectsOf(spec.volumes).map(volume => objectOf(volume.image).reference),
  ]
  return [...new Set(images.flatMap(image => textOf(image) ?? []))]
}

/** Whether spec.imagePullSecrets names this Secret. */
export function namesPullSecret(pod: JsonObject, secretName: string): boolean {
  return objectsOf(objectOf(pod.spec).imagePullSecrets).some(entry => entry.name === secretName)
}

/** A mirror pod represents a static pod; the API server rejects one that refers to a Secret. */
export function isMirrorPod(pod: JsonObject): boolean {
  return Object.hasOwn(objectOf(objectOf(pod.metadata).annotations), MIRROR_ANNOTATION)
}

/** By its own label, in any namespace. */
export function optsOut(pod: JsonObject): boolean {
  const label = objectOf(objectOf(pod.metadata).labels)[injectLabel]
  return label === 'disabled' || label === 'false'
}

/** The ServiceAccount's name; the API server sets it before it calls the webhook. */
export function serviceAccountOf(pod: JsonObject): string {
  const spec = objectOf(pod.spec)
  return textOf(spec.serviceAccountName) ?? textOf(spec.serviceAccount) ?? 'default'
}

/** A name for people: a pod with `generateName` has only the start of its name yet. */
export function displayNameOf(pod: JsonObject): string | undefined {
  const metadata = objectOf(pod.metadata)
  const start = textOf(metadata.generateName)
  return textOf(metadata.name) ?? (start === undefined ? undefined : `${start}*`)
}

/**
 * These functions read JSON of any shape: a value of another type counts as missing. They never throw,
 * since a review gets an answer whatever its pod contains.
 */

export type JsonObject = Readonly<Record<string, unknown>>

/** The object, or an empty one. */
export function objectOf(value: unknown): JsonObject {
  return isObject(value) ? value : {}
}

/** The objects of a list, in order; none where it is no list. */
function objectsOf(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.filter(isObject) : []
}

/** The text, or undefined where it is no text or an empty one. */
export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** A JSON object: neither null nor an array. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

import { createHash } from 'node:crypto'
import type { V1Secret } from '@kubernetes/client-node'
import type { RegistryToken } from '../registry-token/registry-token.ts'
import { dataKey, dockerConfig, namesToken, readDockerConfig } from './docker-config.ts'

export const secretType = 'kubernetes.io/dockerconfigjson'
export const managedByLabel = 'app.kubernetes.io/managed-by'
export const manager = 'pullpass'

/**
 * What is remembered of a Secret: everything but the credential, so that the process holds no
 * token longer than it needs it.
 */
export interface PullSecret {
  namespace: string
  uid: string
  resourceVersion: string
  /** Made by pullpass: our label and the type of a pull secret. Anything else is left alone. */
  ours: boolean
  /** Holds a well-formed credential for exactly our registry, the one that its annotations tell of. */
  wellFormed: boolean
  tokenId: string | undefined
  organization: string | undefined
  mintedAt: Date | undefined
  expiresAt: Date | undefined
  /** The token that this Secret held before, still live until its grace is over. */
  previousTokenId: string | undefined
  /** Its namespace is no longer opted in; Secret and token go at this time. */
  retireAt: Date | undefined
  /** It can only be deleted. */
  immutable: boolean
  /** It is deleted, and a finalizer of somebody else's may hold it for long. */
  terminating: boolean
  /** Of what matters about it: type, `immutable`, our label and its data; not of annotations. */
  digest: string
}

/** What a Secret of ours is made of. */
export interface PullSecretContent {
  namespace: string
  token: RegistryToken
  organization: string
  mintedAt: Date
  previousTokenId?: string | undefined
  retireAt?: Date | undefined
}

export interface PullSecretRules {
  secretName: string
  /** `host[:port]`, the one key under `auths`. */
  registryHost: string
  email?: string | undefined
}

const annotation = {
  tokenId: 'pullpass.io/token-id',
  mintedAt: 'pullpass.io/minted-at',
  organization: 'pullpass.io/organization',
  expiresAt: 'pullpass.io/expires-at',
  previousTokenId: 'pullpass.io/previous-token-id',
  retireAt: 'pullpass.io/retire-at',
} as const

/**
 * The Secret as it should stand in a namespace, equal to what `kubectl create secret
 * docker-registry` makes (kubectl pkg/cmd/create/create_secret_docker.go), with user `token`.
 */
export function pullSecretManifest(content: PullSecretContent, rules: PullSecretRules): V1Secret {
  const { token } = content
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name: rules.secretName,
      namespace: content.namespace,
      labels: { [managedByLabel]: manager },
      annotations: definedOnly({
        [annotation.tokenId]: token.id,
        [annotation.mintedAt]: content.mintedAt.toISOString(),
        [annotation.organization]: content.organization,
        [annotation.expiresAt]: token.expiresAt?.toISOString(),
        [annotation.previousTokenId]: content.previousTokenId,
        [annotation.retireAt]: content.retireAt?.toISOString(),
      }),
    },
    type: secretType,
    data: { [dataKey]: dockerConfig(token.text, rules) },
  }
}

/**
 * The manifest with every annotation of ours emptied that it lacks and the written Secret has
 * nevertheless: server-side apply leaves alone what another manager owns. Undefined: there is none.
 */
export function withoutStrangers(manifest: V1Secret, written: V1Secret): V1Secret | undefined {
  const wanted = manifest.metadata?.annotations ?? {}
  const found = written.metadata?.annotations ?? {}
  const strange = Object.values(annotation).filter(key => !wanted[key] && found[key])
  if (strange.length === 0) return undefined
  const emptied = Object.fromEntries(strange.map(key => [key, '']))
  const annotations = { ...wanted, ...emptied }
  return { ...manifest, metadata: { ...manifest.metadata, annotations } }
}

/** Reads what is remembered of a Secret, as the API server gave it. Never throws. */
export function readPullSecret(secret: V1Secret, rules: PullSecretRules): PullSecret {
  const { metadata = {} } = secret
  const note = metadata.annotations ?? {}
  const text = readCredential(secret, rules)
  const tokenId = readName(note[annotation.tokenId])
  return {
    namespace: metadata.namespace ?? '',
    uid: metadata.uid ?? '',
    resourceVersion: metadata.resourceVersion ?? '',
    ours: metadata.labels?.[managedByLabel] === manager && secret.type === secretType,
    wellFormed: text !== undefined && namesToken(text, tokenId),
    tokenId,
    organization: readName(note[annotation.organization]),
    mintedAt: readDate(note[annotation.mintedAt]),
    expiresAt: readDate(note[annotation.expiresAt]),
    previousTokenId: readName(note[annotation.previousTokenId]),
    retireAt: readDate(note[annotation.retireAt]),
    immutable: secret.immutable === true,
    terminating: metadata.deletionTimestamp !== undefined,
    digest: digestOf(secret),
  }
}

function digestOf({ metadata, type, immutable, data }: V1Secret): string {
  const matters = [type, immutable === true, metadata?.labels?.[managedByLabel], data]
  return createHash('sha256').update(JSON.stringify(matters)).digest('base64url')
}

/** An annotation is anybody's to write: a longer one is none of ours. */
const longestName = 256

function readName(text: string | undefined): string | undefined {
  return text && text.length <= longestName ? text : undefined
}

/** The token that a Secret holds, where the kubelet would use it just as we wrote it. */
export function readCredential(secret: V1Secret, rules: PullSecretRules): string | undefined {
  return readDockerConfig(secret.data?.[dataKey] ?? '', rules.registryHost)
}

function readDate(text: string | undefined): Date | undefined {
  const date = new Date(readName(text) ?? '')
  return Number.isNaN(date.getTime()) ? undefined : date
}

function definedOnly(values: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
}

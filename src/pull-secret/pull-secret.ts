import { hash } from 'node:crypto'
import type { V1Secret } from '@kubernetes/client-node'
import { claimsOf, tokenHash } from '../jwt.ts'

const secretType = 'kubernetes.io/dockerconfigjson'
const pullSecretLabel = 'pullpass.io/pull-secret'
export const manager = 'pullpass'

/** What identifies a token without its text. */
interface TokenIdentity {
  /** SHA-256 of its text, in hex. */
  hash: string
  /** Its `jti`; undefined where the text does not show it. */
  id: string | undefined
}

/**
 * What is remembered of a Secret: everything but the credential, so that the process holds no
 * token longer than it needs it.
 */
export interface PullSecret {
  namespace: string
  uid: string
  resourceVersion: string
  /** Our label and the type of a pull secret. */
  ours: boolean
  /** The token in its data; undefined: no credential that the kubelet would use as we write it. */
  token: TokenIdentity | undefined
  /* Annotations. Others can change them too, so no decision about a token's life depends on them. */
  organization: string | undefined
  mintedAt: Date | undefined
  expiresAt: Date | undefined
  /** The token that this Secret held before, still live until its grace is over. */
  previousTokenId: string | undefined
  /** Its namespace is no longer opted in; Secret and token go at this time. */
  revokeAt: Date | undefined
  /** It can only be deleted. */
  immutable: boolean
  /** It is deleted, and a finalizer of somebody else's may hold it for long. */
  terminating: boolean
  /** Of what matters about it: type, `immutable`, our label and its data; not of annotations. */
  digest: string
}

/** What people read of a Secret of our name that somebody else made. */
export const notManaged = 'exists but is not managed by pullpass'

/** What a Secret of ours is made of. */
export interface PullSecretContent {
  namespace: string
  /** The credential, the id of its token and its end, as far as they are known. */
  token: { text: string; id: string | undefined; expiresAt: Date | undefined }
  organization: string
  mintedAt: Date | undefined
  previousTokenId: string | undefined
  revokeAt: Date | undefined
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
  revokeAt: 'pullpass.io/revoke-at',
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
      labels: { [pullSecretLabel]: 'true' },
      annotations: definedOnly({
        [annotation.tokenId]: token.id,
        [annotation.mintedAt]: content.mintedAt?.toISOString(),
        [annotation.organization]: content.organization,
        [annotation.expiresAt]: token.expiresAt?.toISOString(),
        [annotation.previousTokenId]: content.previousTokenId,
        [annotation.revokeAt]: content.revokeAt?.toISOString(),
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
  return {
    namespace: metadata.namespace ?? '',
    uid: metadata.uid ?? '',
    resourceVersion: metadata.resourceVersion ?? '',
    ours: metadata.labels?.[pullSecretLabel] === 'true' && secret.type === secretType,
    token: text === undefined ? undefined : identifyToken(text),
    organization: readName(note[annotation.organization]),
    mintedAt: readDate(note[annotation.mintedAt]),
    expiresAt: readDate(note[annotation.expiresAt]),
    previousTokenId: readName(note[annotation.previousTokenId]),
    revokeAt: readDate(note[annotation.revokeAt]),
    immutable: secret.immutable === true,
    terminating: metadata.deletionTimestamp !== undefined,
    digest: digestOf(secret),
  }
}

function digestOf({ metadata, type, immutable, data }: V1Secret): string {
  const matters = [type, immutable === true, metadata?.labels?.[pullSecretLabel], data]
  return hash('sha256', JSON.stringify(matters), 'base64url')
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

/** The one key in the data of a Secret of type `kubernetes.io/dockerconfigjson`. */
const dataKey = '.dockerconfigjson'

interface DockerConfig {
  auths?: Record<string, { username?: unknown; password?: unknown; auth?: unknown } | null>
}

/**
 * What `kubectl create secret docker-registry` writes for user `token`, in base64: one entry under
 * `auths`, its key exactly the registry host (kubectl pkg/cmd/create/create_secret_docker.go).
 */
function dockerConfig(
  text: string,
  { registryHost, email }: { registryHost: string; email?: string | undefined },
): string {
  const entry = {
    username: 'token',
    password: text,
    ...(email ? { email } : {}),
    auth: base64(`token:${text}`),
  }
  return base64(JSON.stringify({ auths: { [registryHost]: entry } }))
}

/**
 * The token in a docker config, if it is one that the kubelet would use as we wrote it: exactly
 * one entry, its key the registry host, user `token`, and an `auth` that says the same (a
 * non-empty `auth` wins over user name and password: kubernetes pkg/credentialprovider/config.go).
 */
function readDockerConfig(data: string, registryHost: string): string | undefined {
  const auths = parse(Buffer.from(data, 'base64').toString())?.auths
  if (Object.keys(auths ?? {}).join() !== registryHost) return undefined
  const { username, password, auth } = auths?.[registryHost] ?? {}
  if (username !== 'token' || typeof password !== 'string' || password === '') return undefined
  return auth === base64(`token:${password}`) ? password : undefined
}

/** The hash of a token's text, and its id where the text shows it (the `jti` of a JWT). */
export function identifyToken(text: string): TokenIdentity {
  const { jti } = claimsOf(text)
  return {
    hash: tokenHash(text),
    id: typeof jti === 'string' ? readName(jti) : undefined,
  }
}

function parse(json: string): DockerConfig | undefined {
  try {
    return (JSON.parse(json) as DockerConfig | null) ?? undefined
  } catch {
    return undefined
  }
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}

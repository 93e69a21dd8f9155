/** The one key in the data of a Secret of type `kubernetes.io/dockerconfigjson`. */
export const dataKey = '.dockerconfigjson'

interface DockerConfig {
  auths?: Record<string, { username?: unknown; password?: unknown; auth?: unknown } | null>
}

/**
 * What `kubectl create secret docker-registry` writes for user `token`, in base64: one entry under
 * `auths`, its key exactly the registry host (kubectl pkg/cmd/create/create_secret_docker.go).
 */
export function dockerConfig(
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
export function readDockerConfig(data: string, registryHost: string): string | undefined {
  const auths = parse(Buffer.from(data, 'base64').toString())?.auths
  if (Object.keys(auths ?? {}).join() !== registryHost) return undefined
  const { username, password, auth } = auths?.[registryHost] ?? {}
  if (username !== 'token' || typeof password !== 'string' || password === '') return undefined
  return auth === base64(`token:${password}`) ? password : undefined
}

/** A token that tells its id (the JWT's `jti`) must be the one of this id; others may be any. */
export function namesToken(text: string, id: string | undefined): boolean {
  const claims = parse(Buffer.from(text.split('.')[1] ?? '', 'base64url').toString())
  const jti = (claims as { jti?: unknown } | undefined)?.jti
  return typeof jti !== 'string' || jti === id
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

import { hash } from 'node:crypto'

/** The hash by which a token is compared, so that its text need not be kept: SHA-256 in hex. */
export function tokenHash(text: string): string {
  return hash('sha256', text)
}

/**
 * The claims of a JWT, as far as they can be read. The sample in IBM's procedure has two parts and is
 * cut off within the payload: then only the `jti` is read, which comes first.
 */
export function claimsOf(token: string): Readonly<Record<string, unknown>> {
  const parts = token.split('.')
  if (parts.length < 2 || parts.length > 3) return {}
  const payload = Buffer.from(parts[1] ?? '', 'base64url').toString()
  try {
    const claims: unknown = JSON.parse(payload)
    return typeof claims === 'object' && claims !== null ? { ...claims } : {}
  } catch {
    return { jti: /^\{"jti":"([\w-]+)"/.exec(payload)?.[1] }
  }
}

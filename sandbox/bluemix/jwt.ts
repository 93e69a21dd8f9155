import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  sign,
  timingSafeEqual,
  verify,
} from 'node:crypto'

export type Claims = Record<string, unknown>

/** Claims keep their order, so that tokens have the documented one byte by byte. */
export function signHs256(
  claims: Claims,
  key: Buffer,
  header: Claims = { alg: 'HS256', typ: 'JWT' },
) {
  const content = `${encode(header)}.${encode(claims)}`
  return `${content}.${hmac(content, key)}`
}

/** The claims of a token signed by `key`, whatever its age; undefined for any other text. */
export function verifyHs256(text: string, key: Buffer): Claims | undefined {
  const parts = text.split('.')
  if (parts.length !== 3) return undefined
  const expected = Buffer.from(hmac(`${parts[0]}.${parts[1]}`, key))
  const given = Buffer.from(parts[2] ?? '')
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined
  return decode(parts[1] ?? '')
}

/**
 * A token as distribution registries (2.7 to 3.1) accept it: the signing certificate in `x5c`,
 * the signature as raw r and s (registry/auth/token/token.go).
 */
export function signEs256(claims: Claims, privateKey: string, certificate: string): string {
  const der = certificate.replace(/-----[^-]+-----|\s/g, '')
  const content = `${encode({ typ: 'JWT', alg: 'ES256', x5c: [der] })}.${encode(claims)}`
  const key = { key: createPrivateKey(privateKey), dsaEncoding: 'ieee-p1363' as const }
  return `${content}.${sign('sha256', Buffer.from(content), key).toString('base64url')}`
}

/** The claims of a token signed by the key of `certificate`; undefined for any other text. */
export function verifyEs256(text: string, certificate: string): Claims | undefined {
  const [header, claims, signature, ...rest] = text.split('.')
  if (!header || !claims || !signature || rest.length > 0) return undefined
  const key = { key: createPublicKey(certificate), dsaEncoding: 'ieee-p1363' as const }
  const content = Buffer.from(`${header}.${claims}`)
  return verify('sha256', content, key, Buffer.from(signature, 'base64url'))
    ? decode(claims)
    : undefined
}

/** RFC 9562, 5.5: every token id seen of IBM's registry is a UUID of version 5. */
export function uuidV5(name: string): string {
  const hash = createHash('sha1').update(name).digest().subarray(0, 16)
  hash.writeUInt8(((hash[6] ?? 0) & 0x0f) | 0x50, 6)
  hash.writeUInt8(((hash[8] ?? 0) & 0x3f) | 0x80, 8)
  return hash.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

function hmac(content: string, key: Buffer): string {
  return createHmac('sha256', key).update(content).digest('base64url')
}

function encode(value: Claims): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

function decode(part: string): Claims | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(part, 'base64url').toString())
    return typeof claims === 'object' && claims !== null ? (claims as Claims) : undefined
  } catch {
    return undefined
  }
}

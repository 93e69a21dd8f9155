import type { V1ObjectMeta, V1Secret } from '@kubernetes/client-node'
import {
  CertificateError,
  checkPair,
  issuedAt,
  type KeyPair,
  parseCertificate,
} from '../certificate.ts'
import { type Authority, splitCertificates, trustedCertificates } from './authority.ts'

/*
 * The Secret of the authority. Its type asks for tls.crt and tls.key and allows more.
 *
 * | key                  | holds                                                          |
 * |----------------------|----------------------------------------------------------------|
 * | tls.crt, tls.key     | the signing CA                                                 |
 * | next.crt, next.key   | the next CA, only while there is one                           |
 * | ca.crt               | all trusted CAs: signing, next, older; what a caBundle holds   |
 *
 * The annotation pullpass.io/ca-since: `since` of the authority, RFC 3339.
 */
const SINCE = 'pullpass.io/ca-since'

/**
 * The Secret that holds the authority. `metadata`: its namespace and name, perhaps uid and version.
 * `type`: of the one that is replaced, since it cannot be changed.
 */
export function authoritySecret(
  authority: Authority,
  metadata: V1ObjectMeta,
  type = 'kubernetes.io/tls',
): V1Secret {
  const { signing, next, since } = authority
  const data: Record<string, string> = {
    'tls.crt': signing.cert,
    'tls.key': signing.key,
    'ca.crt': trustedCertificates(authority),
    ...(next && { 'next.crt': next.cert, 'next.key': next.key }),
  }
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      ...metadata,
      labels: { 'app.kubernetes.io/managed-by': 'pullpass' },
      annotations: { [SINCE]: since.toISOString() },
    },
    type,
    data: Object.fromEntries(
      Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')]),
    ),
  }
}

/** Reads the authority from its Secret. Throws a CertificateError when it holds none. */
export function readAuthority(secret: V1Secret): Authority {
  const text = (key: string) => textIn(secret, key)
  const signing = checked({ key: text('tls.key'), cert: text('tls.crt') })
  const next =
    secret.data?.['next.crt'] || secret.data?.['next.key']
      ? checked({ key: text('next.key'), cert: text('next.crt') })
      : undefined
  const current = [signing.cert, next?.cert].filter(cert => cert !== undefined).map(fingerprint)
  const trusted = splitCertificates(text('ca.crt'))
  if (!current.every(one => trusted.map(fingerprint).includes(one))) {
    throw new CertificateError('ca.crt lacks a CA that signs')
  }
  const since = new Date(secret.metadata?.annotations?.[SINCE] ?? '')
  return {
    signing,
    next,
    older: trusted.filter(cert => !current.includes(fingerprint(cert))),
    // Where somebody took it away, the newest CA tells nearly the same.
    since: Number.isNaN(since.getTime())
      ? issuedAt(parseCertificate((next ?? signing).cert))
      : since,
  }
}

/** The signing CA of a Secret of which something else is damaged; undefined: that is damaged too. */
export function readSigning(secret: V1Secret): KeyPair | undefined {
  try {
    return checked({ key: textIn(secret, 'tls.key'), cert: textIn(secret, 'tls.crt') })
  } catch {
    return undefined
  }
}

function textIn({ data }: V1Secret, key: string): string {
  return Buffer.from(data?.[key] ?? '', 'base64').toString()
}

function checked(pair: KeyPair): KeyPair {
  checkPair(pair)
  if (!parseCertificate(pair.cert).ca) throw new CertificateError('the certificate is not of a CA')
  return pair
}

function fingerprint(cert: string): string {
  return parseCertificate(cert).fingerprint256
}

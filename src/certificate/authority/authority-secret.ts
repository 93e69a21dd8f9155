import type { V1ObjectMeta, V1Secret } from '@kubernetes/client-node'
import { CertificateError, checkPair, type KeyPair, parseCertificate } from '../certificate.ts'
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

/** The Secret that holds the authority. `metadata`: its namespace and name, perhaps uid and version. */
export function authoritySecret(authority: Authority, metadata: V1ObjectMeta): V1Secret {
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
    type: 'kubernetes.io/tls',
    data: Object.fromEntries(
      Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')]),
    ),
  }
}

/** Reads the authority from its Secret. Throws a CertificateError when it holds none. */
export function readAuthority(secret: V1Secret): Authority {
  const text = (key: string) => Buffer.from(secret.data?.[key] ?? '', 'base64').toString()
  const signing = checked({ key: text('tls.key'), cert: text('tls.crt') })
  const next = secret.data?.['next.crt']
    ? checked({ key: text('next.key'), cert: text('next.crt') })
    : undefined
  const current = [signing.cert, next?.cert].filter(cert => cert !== undefined).map(fingerprint)
  const since = new Date(secret.metadata?.annotations?.[SINCE] ?? '')
  return {
    signing,
    next,
    older: splitCertificates(text('ca.crt')).filter(cert => !current.includes(fingerprint(cert))),
    // Where somebody took it away, the newest CA tells nearly the same.
    since: Number.isNaN(since.getTime())
      ? parseCertificate((next ?? signing).cert).validFromDate
      : since,
  }
}

function checked(pair: KeyPair): KeyPair {
  checkPair(pair)
  if (!parseCertificate(pair.cert).ca) throw new CertificateError('the certificate is not of a CA')
  return pair
}

function fingerprint(cert: string): string {
  return parseCertificate(cert).fingerprint256
}

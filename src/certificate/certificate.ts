import { createPrivateKey, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

/** A key and its certificate (PEM). `cert` may also hold the certificates of its issuers. */
export interface KeyPair {
  key: string
  cert: string
}

/** A certificate, key or CA that cannot be used. The message says which and why, and holds no key. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError'
}

/** For a clock that is a day behind, plus an hour. */
const BACK_DATED_MS = 25 * 3_600_000

/**
 * The validity of a certificate that lives for `seconds` from `now`. It starts 25 hours earlier, so
 * that each clock within a day of ours accepts it.
 */
export function lifeFrom(now: Date, seconds: number): { notBefore: Date; notAfter: Date } {
  return {
    notBefore: new Date(now.getTime() - BACK_DATED_MS),
    notAfter: new Date(now.getTime() + seconds * 1000),
  }
}

/** When one of our certificates was made. Its life counts from then, not from `notBefore`. */
export function issuedAt({ validFromDate, validToDate }: Validity): Date {
  const issued = new Date(validFromDate.getTime() + BACK_DATED_MS)
  // The first version did not date certificates back.
  return issued < validToDate ? issued : validFromDate
}

/** A certificate is renewed at two thirds of its life; the last third is for failures. */
export function renewAt(certificate: Validity): Date {
  const issued = issuedAt(certificate).getTime()
  return new Date(issued + ((certificate.validToDate.getTime() - issued) * 2) / 3)
}

type Validity = Pick<X509Certificate, 'validFromDate' | 'validToDate'>

/** The Subject Alternative Names for DNS names and IP addresses, as selfsigned takes them. */
export function subjectAltNames(names: string[]) {
  return names.map(name =>
    isIP(name) === 0 ? { type: 2 as const, value: name } : { type: 7 as const, ip: name },
  )
}

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** The certificates in a PEM text, in order. Throws a CertificateError where one is invalid. */
export function parseCertificates(pem: string): X509Certificate[] {
  return (pem.match(PEM) ?? []).map(one => {
    try {
      return new X509Certificate(one)
    } catch {
      throw new CertificateError('a certificate in the PEM text cannot be read')
    }
  })
}

/** The first certificate of a PEM text. Throws a CertificateError where there is none. */
export function parseCertificate(pem: string): X509Certificate {
  const [first] = parseCertificates(pem)
  if (!first) throw new CertificateError('there is no certificate in the PEM text')
  return first
}

/** Throws a CertificateError that says why a server cannot use this pair; ignores its dates. */
export function checkPair({ key, cert }: KeyPair): void {
  const certificate = parseCertificate(cert)
  if (!certificate.checkPrivateKey(privateKey(key))) {
    throw new CertificateError('the private key belongs to another certificate')
  }
}

/** Whether the certificate is valid at this moment. */
export function isValidAt(certificate: Validity, now: Date): boolean {
  return certificate.validFromDate <= now && now < certificate.validToDate
}

const SERVER_AUTH = ['1.3.6.1.5.5.7.3.1', '2.5.29.37.0']

/**
 * Why the API server would refuse a server with this certificate (PEM), apart from its CA: the end of
 * a sentence that starts with the name of the certificate. Go checks only the Subject Alternative
 * Names, and refuses SHA-1 and a certificate for another use.
 */
export function flawOf(
  cert: string,
  { names, now }: { names: string[]; now: Date },
): string | undefined {
  const certificate = parseCertificate(cert)
  const { validFromDate, validToDate, keyUsage: uses } = certificate
  if (now >= validToDate) return `is not valid now: it ended at ${validToDate.toISOString()}`
  if (now < validFromDate) return `is not valid now: it begins at ${validFromDate.toISOString()}`
  const missing = names.filter(name => !isFor(certificate, name))
  if (missing.length > 0) return `is not for the name ${missing.join(', ')}`
  if (isWeaklySigned(certificate))
    return 'has a SHA-1 or MD5 signature, which the API server refuses'
  if (uses && !uses.some(use => SERVER_AUTH.includes(use))) return 'is not for a TLS server'
  return undefined
}

function isFor(certificate: X509Certificate, name: string): boolean {
  if (isIP(name) !== 0) return certificate.checkIP(name) !== undefined
  const options = { subject: 'never', partialWildcards: false } as const
  return certificate.checkHost(name, options) !== undefined
}

function isWeaklySigned({ signatureAlgorithm }: X509Certificate): boolean {
  return /sha1|md5/i.test(signatureAlgorithm ?? '')
}

/**
 * Whether a client that trusts the CAs of `bundle` (PEM) accepts `cert` (PEM, optionally with its
 * issuers, in any order): a chain leads from the first certificate to a CA of the bundle, and each
 * certificate in it is valid now.
 */
export function isTrusted(cert: string, bundle: string, now: Date): boolean {
  const roots = readableCertificates(bundle).filter(root => isValidAt(root, now))
  const [leaf, ...sent] = parseCertificates(cert)
  const reached = leaf ? [leaf] : []
  // The loop adds to `reached`.
  for (const certificate of reached) {
    if (!isValidAt(certificate, now) || isWeaklySigned(certificate)) continue
    if (roots.some(root => isSignedBy(certificate, root))) return true
    const issuers = sent.filter(({ ca }) => ca).filter(each => isSignedBy(certificate, each))
    reached.push(...issuers.filter(each => !reached.includes(each)))
  }
  return false
}

/** Other tools may write the bundle: one that cannot be read counts as empty. */
function readableCertificates(pem: string): X509Certificate[] {
  try {
    return parseCertificates(pem)
  } catch {
    return []
  }
}

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}

function privateKey(pem: string) {
  try {
    return createPrivateKey(pem)
  } catch {
    // The message of OpenSSL may quote the key, so it is dropped.
    throw new CertificateError('the private key cannot be read')
  }
}

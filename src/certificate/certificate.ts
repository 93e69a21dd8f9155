import { createPrivateKey, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

/** A key and its certificate, PEM. `cert` may go on with the certificates of those who signed it. */
export interface KeyPair {
  key: string
  cert: string
}

/** A certificate, its key or its CA cannot be used. The message says which and why, and holds no key. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError'
}

/** For a clock that is a day behind, and an hour more. */
const BACK_DATED_MS = 25 * 3_600_000

/**
 * When a certificate of `seconds` of life, made `now`, is valid. It begins 25 hours ago, so that it
 * is valid by every clock within a day of ours.
 */
export function lifeFrom(now: Date, seconds: number): { notBefore: Date; notAfter: Date } {
  return {
    notBefore: new Date(now.getTime() - BACK_DATED_MS),
    notAfter: new Date(now.getTime() + seconds * 1000),
  }
}

/** When one of our certificates was made: its life counts from then, not from where it is valid. */
export function issuedAt({ validFromDate, validToDate }: Validity): Date {
  const issued = new Date(validFromDate.getTime() + BACK_DATED_MS)
  // A version before this one did not date back so far.
  return issued < validToDate ? issued : validFromDate
}

/** A certificate is renewed at two thirds of its life: the last third is for what goes wrong. */
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

/** The certificates in a PEM text, in order. Throws a CertificateError when one of them is none. */
export function parseCertificates(pem: string): X509Certificate[] {
  return (pem.match(PEM) ?? []).map(one => {
    try {
      return new X509Certificate(one)
    } catch {
      throw new CertificateError('a certificate in the PEM text cannot be read')
    }
  })
}

/** The first certificate of a PEM text. Throws a CertificateError when there is none. */
export function parseCertificate(pem: string): X509Certificate {
  const [first] = parseCertificates(pem)
  if (!first) throw new CertificateError('there is no certificate in the PEM text')
  return first
}

/** Throws a CertificateError that says why a server cannot serve with this pair; dates apart. */
export function checkPair({ key, cert }: KeyPair): void {
  const certificate = parseCertificate(cert)
  if (!certificate.checkPrivateKey(privateKey(key))) {
    throw new CertificateError('the private key belongs to another certificate')
  }
}

/** Whether the certificate may be used at this moment. */
export function isValidAt(certificate: Validity, now: Date): boolean {
  return certificate.validFromDate <= now && now < certificate.validToDate
}

const SERVER_AUTH = ['1.3.6.1.5.5.7.3.1', '2.5.29.37.0']

/**
 * Why the API server would refuse a server with this certificate (PEM), its CA apart: the end of a
 * sentence that begins with the name of the certificate. Go looks at the Subject Alternative Names
 * only, and refuses SHA-1 and a certificate that is made for another use.
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
 * Whether someone who trusts the CAs of `bundle` (PEM) would take `cert` (PEM, perhaps with those
 * who signed it, in any order): from the first certificate leads a chain to a CA of the bundle, and
 * all of it is valid now.
 */
export function isTrusted(cert: string, bundle: string, now: Date): boolean {
  const roots = readableCertificates(bundle).filter(root => isValidAt(root, now))
  const [leaf, ...sent] = parseCertificates(cert)
  const reached = leaf ? [leaf] : []
  // It grows while it is walked.
  for (const certificate of reached) {
    if (!isValidAt(certificate, now) || isWeaklySigned(certificate)) continue
    if (roots.some(root => isSignedBy(certificate, root))) return true
    const issuers = sent.filter(({ ca }) => ca).filter(each => isSignedBy(certificate, each))
    reached.push(...issuers.filter(each => !reached.includes(each)))
  }
  return false
}

/** Somebody else may have written the bundle: what cannot be read is trusted by nobody. */
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
    // The system's message is about the text of the key: it stays here.
    throw new CertificateError('the private key cannot be read')
  }
}

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

/** A key and its certificate, PEM. `cert` may go on with the certificates of those who signed it. */
export interface KeyPair {
  key: string
  cert: string
}

/** What is offered or stored as a certificate is none, or does not fit its key. Holds no key. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError'
}

const BACK_DATED_MS = 600_000

/**
 * When a certificate of `seconds` of life, made `now`, is valid. It begins ten minutes ago (or a
 * tenth of its life, where that is less), for callers whose clock is behind ours.
 */
export function lifeFrom(now: Date, seconds: number): { notBefore: Date; notAfter: Date } {
  const early = Math.min(BACK_DATED_MS, seconds * 100)
  return {
    notBefore: new Date(now.getTime() - early),
    notAfter: new Date(now.getTime() + seconds * 1000),
  }
}

/** A certificate is renewed at two thirds of its life: the last third is for what goes wrong. */
export function renewAt(notBefore: Date, notAfter: Date): Date {
  return new Date(notBefore.getTime() + ((notAfter.getTime() - notBefore.getTime()) * 2) / 3)
}

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
export function isValidAt(certificate: X509Certificate, now: Date): boolean {
  return certificate.validFromDate <= now && now < certificate.validToDate
}

/**
 * Whether someone who trusts the CAs of `bundle` (PEM) would take `cert` (PEM, perhaps with those
 * who signed it): all are valid now, each signed by the next, one of them by a CA of the bundle.
 */
export function isTrusted(cert: string, bundle: string, now: Date): boolean {
  const roots = readableCertificates(bundle).filter(root => isValidAt(root, now))
  const chain = parseCertificates(cert)
  for (const [index, certificate] of chain.entries()) {
    if (!isValidAt(certificate, now)) return false
    if (roots.some(root => isSignedBy(certificate, root))) return true
    const next = chain[index + 1]
    if (!next || !isSignedBy(certificate, next)) return false
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

import { randomBytes } from 'node:crypto'
import { generate } from 'selfsigned'
import { type KeyPair, lifeFrom, parseCertificate, subjectAltNames } from './certificate.ts'

/*
 * All keys are EC keys on P-256: selfsigned needs one kind for CA and leaf, and handshakes are cheap.
 * The algorithm is always set, since the default of selfsigned is SHA-1, which the API server refuses.
 * The certificates have no key identifiers (SKI, AKI): RFC 5280 requires them, selfsigned does not
 * write them, and Go, whose TLS the API server uses, does not need them.
 */
const KEY = { keyType: 'ec', curve: 'P-256', algorithm: 'sha256' } as const

/**
 * Makes a CA, valid from now for `seconds`. Each has its own name: without key identifiers an issuer
 * is found by its name, and old and new CA are trusted at the same time.
 */
export async function makeCa(now: Date, seconds: number): Promise<KeyPair> {
  const { notBefore, notAfter } = lifeFrom(now, seconds)
  const name = `pullpass-ca-${randomBytes(6).toString('hex')}`
  const made = await generate([{ name: 'commonName', value: name }], {
    ...KEY,
    notBeforeDate: notBefore,
    notAfterDate: notAfter,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, critical: true },
    ],
  })
  return { key: made.private, cert: withNewline(made.cert) }
}

/**
 * Signs a serving certificate with a new key for `names` (DNS names, IP addresses), valid from now
 * for `seconds`, but no longer than its CA.
 */
export async function signLeaf(
  authority: KeyPair,
  { names, now, seconds }: { names: string[]; now: Date; seconds: number },
): Promise<KeyPair> {
  const { notBefore, notAfter } = lifeFrom(now, seconds)
  const end = parseCertificate(authority.cert).validToDate.getTime()
  const made = await generate([{ name: 'commonName', value: 'pullpass' }], {
    ...KEY,
    ca: authority,
    notBeforeDate: notBefore,
    notAfterDate: new Date(Math.min(notAfter.getTime(), end)),
    extensions: [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      { name: 'subjectAltName', altNames: subjectAltNames(names) },
    ],
  })
  return { key: made.private, cert: withNewline(made.cert) }
}

function withNewline(pem: string): string {
  return pem.endsWith('\n') ? pem : `${pem}\n`
}

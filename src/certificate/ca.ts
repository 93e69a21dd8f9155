import type { V1ObjectMeta, V1Secret } from '@kubernetes/client-node'
import {
  CertificateError,
  checkPair,
  issuedAt,
  isValidAt,
  type KeyPair,
  parseCertificate,
  parseCertificates,
  renewAt,
} from './certificate.ts'

/** Clocks of replicas differ by seconds: `since` may be a little in our future. */
const CLOCK_TOLERANCE_MS = 60_000

/**
 * Our CA and its rotation. A CA is trusted before it signs, and stays trusted while certificates that
 * it signed can be in use.
 */
export interface CertificateAuthority {
  /** Signs the serving certificates. */
  signing: KeyPair
  /** Trusted, and signs soon. */
  next: KeyPair | undefined
  /** Certificates (PEM) of CAs that no longer sign and are still trusted. Their keys are deleted. */
  older: string[]
  /** Time of the last step: begin, add-next or sign-with-next. */
  since: Date
}

export type CaStep =
  | 'keep'
  | 'begin'
  | 'add-next'
  | 'sign-with-next'
  | 'drop-older'
  | 'correct-since'

/** The input of a step apart from the CA itself. */
export interface CaMoment {
  /** The API server's clock, if it is known. */
  now: Date
  /** The clock of this machine. */
  local: Date
  /** Whether the API server's clock is known. */
  isMeasured: boolean
  /** Lifetime of a serving certificate. */
  leafSeconds: number
  /** Whether the API server trusts this certificate (PEM), according to the configuration. */
  trusts: (cert: string) => boolean
}

/**
 * The one step that is due. `good`: valid now. A CA that is not good has expired, or starts in the
 * future because a replica with a wrong clock made it. `settled` is an hour, or a tenth of the life of
 * a leaf if that is less: enough for each API server to see a changed configuration.
 *
 * | signing CA        | next CA                        | older CAs             | step           |
 * |-------------------|--------------------------------|-----------------------|----------------|
 * | not good          | good                           | any                   | sign-with-next |
 * | not good          | - or not good                  | any                   | begin          |
 * | good              | any                            | `since` in the future | correct-since  |
 * | good              | not good                       | any                   | add-next       |
 * | good              | good, trusted and settled      | -                     | sign-with-next |
 * | good              | good                           | -                     | keep           |
 * | good              | -                              | for a leaf + settled  | drop-older     |
 * | good              | -                              | there                 | keep           |
 * | past 2/3 of life  | -                              | -                     | add-next       |
 * | younger           | -                              | -                     | keep           |
 *
 * The time is the API server's. Some steps end the trust in certificates that may be in use:
 *
 * | clocks                                                    | step                             |
 * |-----------------------------------------------------------|----------------------------------|
 * | the API server's is not measured yet                      | keep                             |
 * | ours leads to the same step, however far apart they are   | as above                         |
 * | ours leads to another step                                | as above; keep for begin and drop-older |
 *
 * A replica reads the CA before it signs, so the last leaf of an older CA is as old as the change of
 * the signing CA.
 */
export function planCa(authority: CertificateAuthority, moment: CaMoment): CaStep {
  if (!moment.isMeasured) return 'keep'
  const step = stepDue(authority, moment)
  if (step !== 'begin' && step !== 'drop-older') return step
  return stepDue(authority, { ...moment, now: moment.local }) === step ? step : 'keep'
}

function stepDue(authority: CertificateAuthority, moment: CaMoment): CaStep {
  const { signing, next, older, since } = authority
  if (!isGood(signing, moment)) return isGood(next, moment) ? 'sign-with-next' : 'begin'
  if (since.getTime() > moment.now.getTime() + CLOCK_TOLERANCE_MS) return 'correct-since'
  if (next) return stepWithNext(next, since, moment)
  if (older.length > 0) return olderAreUnused(since, moment) ? 'drop-older' : 'keep'
  return moment.now >= renewAt(parseCertificate(signing.cert)) ? 'add-next' : 'keep'
}

function stepWithNext(next: KeyPair, since: Date, moment: CaMoment): CaStep {
  if (!isGood(next, moment)) return 'add-next'
  return nextMaySign(next, since, moment) ? 'sign-with-next' : 'keep'
}

function isGood(pair: KeyPair | undefined, { now }: CaMoment): boolean {
  return pair !== undefined && isValidAt(parseCertificate(pair.cert), now)
}

/** A new CA: nothing else is trusted. */
export function begun(signing: KeyPair, now: Date): CertificateAuthority {
  return { signing, next: undefined, older: [], since: now }
}

/** Adds the next CA: it is trusted from now on, and does not sign yet. */
export function withNext(
  authority: CertificateAuthority,
  next: KeyPair,
  now: Date,
): CertificateAuthority {
  return { ...authority, next, since: now }
}

/** The next CA signs from now on; the older ones stay trusted while their leafs can be in use. */
export function signingWithNext(authority: CertificateAuthority, now: Date): CertificateAuthority {
  const { signing, next, older } = authority
  if (!next) return authority
  return { signing: next, next: undefined, older: [signing.cert, ...older], since: now }
}

/** Ends the trust in the older CAs: none of their leafs can be in use. */
export function withoutOlder(authority: CertificateAuthority, now: Date): CertificateAuthority {
  return { ...authority, older: [], since: now }
}

/** All trusted certificates as one PEM text, for the caBundle. */
export function trustedCertificates({ signing, next, older }: CertificateAuthority): string {
  return [signing.cert, ...(next ? [next.cert] : []), ...older].join('')
}

/** The certificates of a PEM text, each again as PEM with a newline at its end. */
export function splitCertificates(pem: string): string[] {
  return parseCertificates(pem).map(certificate => certificate.toString())
}

function nextMaySign(next: KeyPair, since: Date, moment: CaMoment): boolean {
  return isPast(since, settledSeconds(moment), moment.now) && moment.trusts(next.cert)
}

function olderAreUnused(since: Date, moment: CaMoment): boolean {
  return isPast(since, moment.leafSeconds + settledSeconds(moment), moment.now)
}

function settledSeconds({ leafSeconds }: CaMoment): number {
  return Math.min(3600, leafSeconds / 10)
}

function isPast(since: Date, seconds: number, now: Date): boolean {
  return now.getTime() >= since.getTime() + seconds * 1000
}

/*
 * The Secret of the CA. Its type requires tls.crt and tls.key, and allows more keys.
 *
 * | key                  | holds                                                          |
 * |----------------------|----------------------------------------------------------------|
 * | tls.crt, tls.key     | the signing CA                                                 |
 * | next.crt, next.key   | the next CA, only while there is one                           |
 * | ca.crt               | all trusted CAs: signing, next, older; as in the caBundle      |
 *
 * The annotation pullpass.io/ca-since: `since` of the authority, RFC 3339.
 */
const SINCE = 'pullpass.io/ca-since'

/**
 * The Secret that holds the CA. `metadata`: namespace and name, optionally uid and version. `type`: of
 * the Secret that it replaces, since the type is immutable.
 */
export function caSecret(
  authority: CertificateAuthority,
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

/** Reads the CA from its Secret. Throws a CertificateError where it holds none. */
export function readCa(secret: V1Secret): CertificateAuthority {
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
    // Without the annotation, the age of the newest CA is nearly the same.
    since: Number.isNaN(since.getTime())
      ? issuedAt(parseCertificate((next ?? signing).cert))
      : since,
  }
}

/** The signing CA of a damaged Secret; undefined: it is damaged too. */
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

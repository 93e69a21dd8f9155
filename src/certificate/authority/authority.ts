import {
  isValidAt,
  type KeyPair,
  parseCertificate,
  parseCertificates,
  renewAt,
} from '../certificate.ts'

/**
 * Our CA through its changes. A CA is trusted before it signs, and stays trusted until nothing it
 * signed can be in use.
 */
export interface Authority {
  /** Signs the serving certificates. */
  signing: KeyPair
  /** Trusted already, to sign soon. */
  next: KeyPair | undefined
  /** Certificates (PEM) of CAs that sign no more and are still trusted. Their keys are gone. */
  older: string[]
  /** When it became what it is: begun, next added, or last changed who signs. */
  since: Date
}

export type AuthorityStep = 'keep' | 'begin' | 'add-next' | 'sign-with-next' | 'drop-older'

/** What a step depends on beside the authority itself. */
export interface AuthorityMoment {
  now: Date
  /** Life of a serving certificate. */
  leafSeconds: number
  /** Whether the API server trusts this certificate (PEM), as far as its configuration tells. */
  trusts: (cert: string) => boolean
}

/**
 * The one step that is due. `settled` is an hour, or a tenth of a leaf's life where that is less:
 * enough for every API server to learn of a changed configuration.
 *
 * | signing CA        | next CA                        | older CAs             | step           |
 * |-------------------|--------------------------------|-----------------------|----------------|
 * | ended             | -                              | any                   | begin          |
 * | ended             | there                          | any                   | sign-with-next |
 * | good              | there, trusted and settled     | -                     | sign-with-next |
 * | good              | there                          | -                     | keep           |
 * | good              | -                              | for a leaf + settled  | drop-older     |
 * | good              | -                              | there                 | keep           |
 * | past 2/3 of life  | -                              | -                     | add-next       |
 * | younger           | -                              | -                     | keep           |
 *
 * A replica signs only after it has read the authority anew, so the last leaf of an older CA is as
 * old as the change of the signing CA.
 */
export function planAuthority(authority: Authority, moment: AuthorityMoment): AuthorityStep {
  const { signing, next, older } = authority
  const { validFromDate, validToDate } = parseCertificate(signing.cert)
  if (moment.now >= validToDate) return next ? 'sign-with-next' : 'begin'
  if (next) return nextMaySign(next, authority.since, moment) ? 'sign-with-next' : 'keep'
  if (older.length > 0) return olderAreUnused(authority.since, moment) ? 'drop-older' : 'keep'
  return moment.now >= renewAt(validFromDate, validToDate) ? 'add-next' : 'keep'
}

/** A CA from its beginning: nothing else is trusted. */
export function begun(signing: KeyPair, now: Date): Authority {
  return { signing, next: undefined, older: [], since: now }
}

/** Announces the CA that is to sign next: it is trusted from now on, and signs nothing yet. */
export function withNext(authority: Authority, next: KeyPair, now: Date): Authority {
  return { ...authority, next, since: now }
}

/** The next CA signs from now on; the former ones stay trusted until they end. */
export function signingWithNext(authority: Authority, now: Date): Authority {
  const { signing, next, older } = authority
  if (!next) return authority
  const stillValid = [signing.cert, ...older].filter(cert => isValidAt(parseCertificate(cert), now))
  return { signing: next, next: undefined, older: stillValid, since: now }
}

/** No leaf of a former CA can be in use any more: they are trusted no longer. */
export function withoutOlder(authority: Authority, now: Date): Authority {
  return { ...authority, older: [], since: now }
}

/** All certificates that are to be trusted, as one PEM text: what belongs into a caBundle. */
export function trustedCertificates({ signing, next, older }: Authority): string {
  return [signing.cert, ...(next ? [next.cert] : []), ...older].join('')
}

/** The certificates of a PEM text, each again as PEM with a newline at its end. */
export function splitCertificates(pem: string): string[] {
  return parseCertificates(pem).map(certificate => certificate.toString())
}

function nextMaySign(next: KeyPair, since: Date, moment: AuthorityMoment): boolean {
  return isPast(since, settledSeconds(moment), moment.now) && moment.trusts(next.cert)
}

function olderAreUnused(since: Date, moment: AuthorityMoment): boolean {
  return isPast(since, moment.leafSeconds + settledSeconds(moment), moment.now)
}

function settledSeconds({ leafSeconds }: AuthorityMoment): number {
  return Math.min(3600, leafSeconds / 10)
}

function isPast(since: Date, seconds: number, now: Date): boolean {
  return now.getTime() >= since.getTime() + seconds * 1000
}

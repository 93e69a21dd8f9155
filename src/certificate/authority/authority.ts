import {
  isValidAt,
  type KeyPair,
  parseCertificate,
  parseCertificates,
  renewAt,
} from '../certificate.ts'

/** Clocks of replicas differ by seconds; `since` may be a little ahead of ours. */
const CLOCK_TOLERANCE_MS = 60_000

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

export type AuthorityStep =
  | 'keep'
  | 'begin'
  | 'add-next'
  | 'sign-with-next'
  | 'drop-older'
  | 'correct-since'

/** What a step depends on beside the authority itself. */
export interface AuthorityMoment {
  /** The API server's clock, as far as it is known. */
  now: Date
  /** The clock of this machine. */
  local: Date
  /** Whether the API server's clock is known. */
  isMeasured: boolean
  /** Life of a serving certificate. */
  leafSeconds: number
  /** Whether the API server trusts this certificate (PEM), as far as its configuration tells. */
  trusts: (cert: string) => boolean
}

/**
 * The one step that is due. `good`: valid now; what is not has ended, or begins in the future: a
 * replica with a wrong clock has made it. `settled` is an hour, or a tenth of a leaf's life where
 * that is less: enough for every API server to learn of a changed configuration.
 *
 * | signing CA        | next CA                        | older CAs             | step           |
 * |-------------------|--------------------------------|-----------------------|----------------|
 * | not good          | good                           | any                   | sign-with-next |
 * | not good          | - or not good                  | any                   | begin          |
 * | good              | any                            | `since` is to come    | correct-since  |
 * | good              | not good                       | any                   | add-next       |
 * | good              | good, trusted and settled      | -                     | sign-with-next |
 * | good              | good                           | -                     | keep           |
 * | good              | -                              | for a leaf + settled  | drop-older     |
 * | good              | -                              | there                 | keep           |
 * | past 2/3 of life  | -                              | -                     | add-next       |
 * | younger           | -                              | -                     | keep           |
 *
 * The time is the API server's. Some steps take trust from certificates that may be in use:
 *
 * | clocks                                                    | step                             |
 * |-----------------------------------------------------------|----------------------------------|
 * | the API server's is not measured yet                      | keep                             |
 * | ours leads to the same step, however far apart they are   | as above                         |
 * | ours leads to another step                                | as above; keep for begin and drop-older |
 *
 * A replica signs only after it has read the authority anew, so the last leaf of an older CA is as
 * old as the change of the signing CA.
 */
export function planAuthority(authority: Authority, moment: AuthorityMoment): AuthorityStep {
  if (!moment.isMeasured) return 'keep'
  const step = stepDue(authority, moment)
  if (step !== 'begin' && step !== 'drop-older') return step
  return stepDue(authority, { ...moment, now: moment.local }) === step ? step : 'keep'
}

function stepDue(authority: Authority, moment: AuthorityMoment): AuthorityStep {
  const { signing, next, older, since } = authority
  if (!isGood(signing, moment)) return isGood(next, moment) ? 'sign-with-next' : 'begin'
  if (since.getTime() > moment.now.getTime() + CLOCK_TOLERANCE_MS) return 'correct-since'
  if (next) return stepWithNext(next, since, moment)
  if (older.length > 0) return olderAreUnused(since, moment) ? 'drop-older' : 'keep'
  return moment.now >= renewAt(parseCertificate(signing.cert)) ? 'add-next' : 'keep'
}

function stepWithNext(next: KeyPair, since: Date, moment: AuthorityMoment): AuthorityStep {
  if (!isGood(next, moment)) return 'add-next'
  return nextMaySign(next, since, moment) ? 'sign-with-next' : 'keep'
}

function isGood(pair: KeyPair | undefined, { now }: AuthorityMoment): boolean {
  return pair !== undefined && isValidAt(parseCertificate(pair.cert), now)
}

/** A CA from its beginning: nothing else is trusted. */
export function begun(signing: KeyPair, now: Date): Authority {
  return { signing, next: undefined, older: [], since: now }
}

/** Announces the CA that is to sign next: it is trusted from now on, and signs nothing yet. */
export function withNext(authority: Authority, next: KeyPair, now: Date): Authority {
  return { ...authority, next, since: now }
}

/** The next CA signs from now on; the former ones stay trusted until their leafs are gone. */
export function signingWithNext(authority: Authority, now: Date): Authority {
  const { signing, next, older } = authority
  if (!next) return authority
  return { signing: next, next: undefined, older: [signing.cert, ...older], since: now }
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

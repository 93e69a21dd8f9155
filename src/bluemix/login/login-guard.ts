import { TokenError } from '../../registry-token/registry-token.ts'
import { environmentFailure } from '../http/failure.ts'

/** Keeps the account from being locked: says whether another login may be tried. */
export interface LoginGuard {
  /** Throws where it must not be tried with the credentials of this digest. */
  check(digest: string): void
  succeeded(): void
  failed(error: TokenError): void
  /** The credential files have this content now: what is held against others is forgotten. */
  renew(digest: string): void
  refusal(): TokenError | undefined
}

/** So many tries may follow each other at once; then there is one in each pause. */
export const quickTries = 3
export const pauseMs = 600_000

/**
 * UAA locks an account after 5 failures in 1200 s (cloudfoundry/uaa oauth-endpoints.xml).
 *
 * | the last login with these credentials              | the next one                          |
 * |----------------------------------------------------|---------------------------------------|
 * | was refused                                        | not before the credential files change|
 * | had no answer in time, and they never worked before| three at once, then one in 10 minutes |
 * | anything else                                      | at any time                           |
 *
 * The second row is for a wrong key at a login server that is too slow to say so: it counts on.
 */
export function createLoginGuard(now: () => number): LoginGuard {
  let known: string | undefined
  let refusal: TokenError | undefined
  let proven = false
  let unanswered = 0
  let pausedUntil = 0
  const renew = (digest: string) => {
    if (digest === known) return
    known = digest
    refusal = undefined
    proven = false
    unanswered = 0
    pausedUntil = 0
  }
  return {
    renew,
    check: digest => {
      renew(digest)
      if (refusal !== undefined) throw refusal
      if (now() < pausedUntil) throw paused(pausedUntil - now())
    },
    succeeded: () => {
      proven = true
      unanswered = 0
    },
    failed: error => {
      if (error.kind === 'locked') refusal = error
      if (proven || error.code !== 'timeout') return
      unanswered += 1
      if (unanswered >= quickTries) pausedUntil = now() + pauseMs
    },
    refusal: () => refusal,
  }
}

/** For logins that are taken and not answered: each of them may be a failure that counts. */
export function paused(retryAfterMs: number): TokenError {
  const minutes = Math.ceil(retryAfterMs / 60_000)
  const { message, kind, scope, code } = environmentFailure(
    'transient',
    'login_paused',
    `the login server takes logins but does not answer; next try in ${minutes} min`,
  )
  return new TokenError(message, { kind, scope, code, retryAfterMs })
}

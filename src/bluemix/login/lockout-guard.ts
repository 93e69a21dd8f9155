import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import { Counter, type Registry } from 'prom-client'
import { TokenError } from '../../issuer/issuer.ts'
import type { Discovery } from '../endpoints.ts'
import { environmentFailure } from '../http/answer.ts'
import type { Credentials } from './credentials.ts'
import type { Grant, TokenEndpoint } from './oauth.ts'

/** A line of text that outlives this process and that all replicas share. */
export interface Note {
  /** Undefined where nothing was written yet. */
  read(): Promise<string | undefined>
  write(text: string): Promise<void>
}

interface LoginMemory {
  /** Before each login. Rejects with a TokenError where it must not be tried, whoever tried before. */
  enter(digest: string): Promise<void>
  /** After it. `error`: how it failed. Never rejects. */
  leave(digest: string, error?: TokenError): Promise<void>
}

interface Remembered {
  credentials: string
  /** Logins begun of which no outcome is known, and when the last of them began (epoch ms). */
  unanswered: number
  at: number
  refused?: { code: string; message: string }
}

/** UAA counts failures for 1200 s and locks at the fifth (cloudfoundry/uaa oauth-endpoints.xml). */
const countedMs = 1_200_000

/**
 * What login-guard.ts knows of the logins of this process, this keeps for the next one: however
 * often a pullpass with a wrong key is restarted, the account is not locked.
 *
 * | noted of these credentials                      | the next login                     |
 * |-------------------------------------------------|------------------------------------|
 * | nothing, or other credentials                   | is tried                           |
 * | refused                                         | not before the credentials change  |
 * | three begun within 1200 s, no outcome known     | one in 10 minutes                  |
 *
 * A login is noted before it is made, since the process may not live to tell how it went.
 */
export function createLoginMemory(note: Note, now: () => number): LoginMemory {
  async function recall(digest: string): Promise<Remembered> {
    const found = parse(await note.read())
    const credentials = fingerprint(digest)
    if (found?.credentials !== credentials) return { credentials, unanswered: 0, at: 0 }
    return now() - found.at < countedMs ? found : { ...found, unanswered: 0 }
  }
  const write = (remembered: Remembered) => note.write(JSON.stringify(remembered))
  return {
    enter: async digest => {
      try {
        const before = await recall(digest)
        if (before.refused !== undefined) throw refusedBefore(before.refused)
        const again = before.at + pauseMs - now()
        if (before.unanswered >= quickTries && again > 0) throw paused(again)
        await write({ ...before, unanswered: before.unanswered + 1, at: now() })
      } catch (error) {
        throw error instanceof TokenError ? error : forgetful(error as Error)
      }
    },
    leave: async (digest, error) => {
      if (error?.code === 'timeout') return
      const refused = error?.kind === 'locked' && { code: error.code, message: error.message }
      // Where this fails, the login stays noted as one of unknown outcome: that is on the safe side.
      await recall(digest)
        .then(({ credentials, unanswered, at }) => {
          const left = error === undefined ? 0 : Math.max(0, unanswered - 1)
          return write({ credentials, unanswered: left, at, ...(refused && { refused }) })
        })
        .catch(() => {})
    },
  }
}

/**
 * Tells one credential from another and nothing about either: 16 bits are no help in guessing a
 * password. One in 65,536 new credentials is taken for the old one; deleting the note helps then.
 */
function fingerprint(digest: string): string {
  return createHash('sha256').update(`pullpass login ${digest}`).digest('hex').slice(0, 4)
}

function parse(text: string | undefined): Remembered | undefined {
  try {
    const found = JSON.parse(text ?? '') as Partial<Remembered> | null
    const whole = typeof found?.unanswered === 'number' && typeof found.at === 'number'
    return whole ? (found as Remembered) : undefined
  } catch {
    return undefined
  }
}

function refusedBefore({ code, message }: { code: string; message: string }): TokenError {
  return new TokenError(message, { kind: 'locked', scope: 'environment', code })
}

function forgetful({ message }: Error): TokenError {
  const text = `no login is tried while it cannot be noted: ${message}`
  return environmentFailure('transient', 'login_not_noted', text)
}

/** Keeps the account from being locked: says whether another login may be tried. */
interface LoginGuard {
  /** Throws where it must not be tried with the credentials of this digest. */
  check(digest: string): void
  succeeded(): void
  failed(error: TokenError): void
  /** The credential files have this content now: what is held against others is forgotten. */
  renew(digest: string): void
  refusal(): TokenError | undefined
}

/** So many tries may follow each other at once; then there is one in each pause. */
const quickTries = 3
const pauseMs = 600_000

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
function createLoginGuard(now: () => number): LoginGuard {
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
function paused(retryAfterMs: number): TokenError {
  const minutes = Math.ceil(retryAfterMs / 60_000)
  const { message, kind, scope, code } = environmentFailure(
    'transient',
    'login_paused',
    `the login server takes logins but does not answer; next try in ${minutes} min`,
  )
  return new TokenError(message, { kind, scope, code, retryAfterMs })
}

export interface GuardedLogin {
  /** Throws where no login may be tried with the credentials of this digest. */
  check(digest: string): void
  /** One login, counted and logged. */
  attempt(credentials: Credentials): Promise<Grant>
  /** A refresh showed that a login would be refused. */
  refuse(error: TokenError): void
  /** The credential files have this content now. */
  credentialsAre(digest: string): void
  /** The refusal that stands. */
  refusal(): TokenError | undefined
}

interface Options {
  discovery: Discovery
  tokenEndpoint: TokenEndpoint
  logger: Logger
  metrics: Registry
  now: () => number
  /** Where logins are noted for the next process. */
  note: Note
  closing: AbortSignal
}

/** Logins that cannot lock the account: see the tables of login-guard.ts and login-memory.ts. */
export function createGuardedLogin(options: Options): GuardedLogin {
  const guard = createLoginGuard(options.now)
  const memory = createLoginMemory(options.note, options.now)
  const logins = loginCounter(options.metrics)
  const attempt = guarded(options, { guard, memory })
  return {
    attempt: async credentials => {
      try {
        const grant = await attempt(credentials)
        logins.inc({ outcome: 'success' })
        options.logger.info({ with: credentials.kind, lifetimeMs: grant.lifetimeMs }, 'logged in')
        return grant
      } catch (error) {
        const { code, message } = error as TokenError
        logins.inc({ outcome: code })
        options.logger.warn({ code, problem: message }, 'login failed')
        throw error
      }
    },
    check: guard.check,
    refuse: guard.failed,
    credentialsAre: guard.renew,
    refusal: guard.refusal,
  }
}

function guarded(
  { discovery, tokenEndpoint, closing }: Options,
  { guard, memory }: { guard: LoginGuard; memory: LoginMemory },
): (credentials: Credentials) => Promise<Grant> {
  return async credentials => {
    // Asked again after each failure, so that an environment that is down costs no attempt.
    await discovery.endpoints(closing)
    await memory.enter(credentials.digest).catch(error => {
      guard.failed(error)
      throw error
    })
    try {
      const grant = await tokenEndpoint.login(credentials, closing)
      guard.succeeded()
      await memory.leave(credentials.digest)
      return grant
    } catch (error) {
      guard.failed(error as TokenError)
      await memory.leave(credentials.digest, error as TokenError)
      discovery.forget()
      throw error
    }
  }
}

function loginCounter(registry: Registry) {
  return new Counter({
    name: 'pullpass_logins_total',
    help: 'Full logins at the Bluemix environment, by outcome.',
    labelNames: ['outcome'],
    registers: [registry],
  })
}

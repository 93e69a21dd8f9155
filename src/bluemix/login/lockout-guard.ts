import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import { Counter, type Registry } from 'prom-client'
import { TokenError } from '../../issuer/issuer.ts'
import type { Credentials } from './credentials.ts'
import {
  type Attempt,
  afterLockedMs,
  createLoginRecord,
  isCounted,
  type LoginRecord,
  type Note,
  type Outcome,
  type Reason,
  windowMs,
} from './login-record.ts'
import type { Grant, LoginServer } from './oauth.ts'

export interface LockoutGuard {
  /** One login, if it is allowed now. Rejects with a TokenError that says when the next one is. */
  login(credentials: Credentials, signal: AbortSignal): Promise<Grant>
  /** Why the credentials of this digest cannot log in now, as far as this process knows. */
  problem(digest: string): TokenError | undefined
}

interface Dependencies {
  server: LoginServer
  /** Where the logins are recorded, for all processes. */
  note: Note
  logger: Logger
  metrics: Registry
  /** The clock that all replicas share, in epoch milliseconds. */
  now: () => number
  /** Monotonic milliseconds. */
  elapsed: () => number
}

interface Settings {
  /** The same files at another login server are other credentials. */
  loginServer: string
}

const mostCounted = 3
const afterRefusedMs = 3_600_000
const probeEveryMs = 30_000

/**
 * UAA locks an account for 300 s after 5 failed logins within 1200 s. It does not count a login that
 * it answers with "locked" (cloudfoundry/uaa oauth-endpoints.xml, PeriodLockoutPolicy).
 *
 * | the login                                    | counted | the next login                      |
 * |----------------------------------------------|---------|-------------------------------------|
 * | was granted                                  | no      | at any time                         |
 * | was refused                                  | yes     | with other credentials at once,     |
 * |                                              |         | with the same after an hour         |
 * | got no answer in the shape of UAA or IAM     | yes     | when the login server has answered  |
 * | (timeout, reset, cut, outage, HTML), or its  |         | in its own shape a request that     |
 * | process ended before                         |         | names no user, sent every 30 s      |
 * | was answered with "locked"                   | no      | with other credentials at once,     |
 * |                                              |         | with the same after 10 minutes      |
 * | is the third that counts within 20 minutes,  | yes     | when the oldest of the three is     |
 * | over all credentials, replicas and restarts  |         | 20 minutes old                      |
 *
 * Where several rows apply, the latest time counts. A login is recorded before it is sent, because
 * the process may end before the answer arrives.
 */
export function createLockoutGuard(dependencies: Dependencies, settings: Settings): LockoutGuard {
  const { server, note, now, elapsed } = dependencies
  const record = createLoginRecord({ note, now, elapsed })
  const { wait, admit } = createAdmission({ server, record, now, elapsed })
  const report = createReport(dependencies.logger, dependencies.metrics)
  const keyOf = (digest: string) => fingerprint(digest, settings.loginServer)
  return {
    problem: digest => wait(keyOf(digest))?.error,
    login: async (credentials, signal) => {
      const key = keyOf(credentials.digest)
      await admit(key, signal)
      const end = await record.begin(key).catch(async () => {
        // Another process may have recorded a login meanwhile: that one counts too.
        await admit(key, signal)
        return record.begin(key)
      })
      try {
        const grant = await server.login(credentials, signal)
        await end('granted')
        report.granted(credentials, grant)
        return grant
      } catch (error) {
        const { code, message } = error as TokenError
        await end(outcomeOf(error as TokenError, signal), { code, message })
        report.failed({ code, message })
        throw wait(key)?.error ?? error
      }
    },
  }
}

function createAdmission(dependencies: {
  server: LoginServer
  record: LoginRecord
  now: () => number
  elapsed: () => number
}) {
  const { server, record, now, elapsed } = dependencies
  let probeAt = elapsed()
  const wait = (key: string) => {
    const times = { nowMs: elapsed(), probeAt, clockOffset: now() - elapsed() }
    return waitFor(record.attempts(), key, times)
  }
  /** Resolves where a login is allowed now. */
  async function admit(key: string, signal: AbortSignal): Promise<void> {
    const known = wait(key)
    if (known?.canProbe === false) throw known.error
    await server.locate(signal)
    await record.read()
    const found = wait(key)
    if (found === undefined) return
    if (!found.canProbe) throw found.error
    probeAt = elapsed() + probeEveryMs
    const failure = await server.probe(signal)
    if (failure === undefined) return
    record.explainLast(failure)
    throw wait(key)?.error ?? failure
  }
  return { wait, admit }
}

/** Codes of failures before a request leaves. */
const unsentCodes = ['ca_unusable', 'insecure_address']

function outcomeOf(error: TokenError, signal: AbortSignal): Outcome | 'unsent' {
  const isHeldBack = error.code === 'aborted' && !signal.aborted
  if (isHeldBack || unsentCodes.includes(error.code)) return 'unsent'
  if (error.code === 'account_locked') return 'locked'
  return error.kind === 'locked' ? 'refused' : 'unanswered'
}

interface Wait {
  error: TokenError
  /** Only the answer to a probe is missing, and it is time to send one. */
  canProbe: boolean
}

interface Times {
  nowMs: number
  /** When the next probe may be sent. */
  probeAt: number
  /** Makes epoch milliseconds of a time. */
  clockOffset: number
}

/** What the next login with these credentials has to wait for; undefined: for nothing. */
function waitFor(attempts: readonly Attempt[], key: string, times: Times): Wait | undefined {
  const { nowMs, probeAt } = times
  const limitAt = limitEnd(attempts, nowMs)
  const ownAt = ownEnd(attempts, key)
  const needsAnswer = isUnanswered(attempts.at(-1))
  if (Math.max(limitAt, ownAt) <= nowMs && !needsAnswer) return undefined
  const at = Math.max(limitAt, ownAt, needsAnswer ? probeAt : never)
  const { code, message } = reasonFor(attempts, key, ownAt > nowMs)
  const next = nextLogin({ limitAt, ownAt, needsAnswer, at }, times)
  const error = new TokenError(`${message}; ${next}`, {
    kind: ownAt > nowMs ? 'locked' : 'transient',
    scope: 'environment',
    code,
    retryAfterMs: Math.max(at - nowMs, 1000),
  })
  return { error, canProbe: at <= nowMs }
}

/** The end of a wait that does not apply. */
const never = Number.NEGATIVE_INFINITY

function isUnanswered(last: Attempt | undefined): boolean {
  return last?.outcome === 'unanswered' || last?.outcome === 'begun'
}

/** When fewer than three logins count. */
function limitEnd(attempts: readonly Attempt[], nowMs: number): number {
  const counted = attempts.filter(isCounted).filter(({ at }) => at > nowMs - windowMs)
  const oldest = counted.at(-mostCounted)
  return oldest === undefined ? never : oldest.at + windowMs
}

/** When these credentials can be tried again. */
function ownEnd(attempts: readonly Attempt[], key: string): number {
  const last = attempts.at(-1)
  if (last?.key === key && last.outcome === 'refused') return last.at + afterRefusedMs
  const found = attempts.findLast(each => each.key === key && each.outcome === 'locked')
  return found === undefined ? never : found.at + afterLockedMs
}

function reasonFor(attempts: readonly Attempt[], key: string, isOwn: boolean): Reason {
  const last = attempts.at(-1)
  if (isUnanswered(last)) return last?.reason ?? unanswered
  if (!isOwn) return paused
  return (last?.key === key && last.reason) || locked
}

const unanswered = { code: 'login_unanswered', message: 'the last login got no answer' }
const paused = {
  code: 'login_paused',
  message: 'three logins failed within 20 minutes, and five lock the account',
}
const locked = {
  code: 'account_locked',
  message: 'cannot log in: the account is locked after too many failed logins',
}

interface Ends {
  limitAt: number
  ownAt: number
  needsAnswer: boolean
  /** The latest of all. */
  at: number
}

function nextLogin(ends: Ends, { nowMs, clockOffset }: Times): string {
  const { limitAt, ownAt, needsAnswer, at } = ends
  const time = (ms: number) => clockTime(Math.max(ms, nowMs) + clockOffset)
  if (ownAt > nowMs) {
    const others = limitAt > nowMs ? `at ${time(limitAt)}` : 'at once'
    return `next login at ${time(at)}, with other credentials ${others}`
  }
  if (limitAt <= nowMs) return `next login when the login server answers, next check at ${time(at)}`
  return `next login at ${time(limitAt)}${needsAnswer ? ' if the login server answers then' : ''}`
}

/** In whole seconds, rounded up: the login is allowed then. */
function clockTime(ms: number): string {
  return `${new Date(Math.ceil(ms / 1000) * 1000).toISOString().slice(0, 19)}Z`
}

/**
 * Distinguishes credentials and reveals nothing about them: 16 bits do not help to guess a password.
 * One new credential in 65,536 is taken for the former one, and waits for an hour.
 */
function fingerprint(digest: string, loginServer: string): string {
  const text = `pullpass login ${digest} ${loginServer}`
  return createHash('sha256').update(text).digest('hex').slice(0, 4)
}

function createReport(logger: Logger, metrics: Registry) {
  const logins = new Counter({
    name: 'pullpass_logins_total',
    help: 'Full logins at the Bluemix environment, by outcome.',
    labelNames: ['outcome'],
    registers: [metrics],
  })
  return {
    granted({ kind }: Credentials, { lifetimeMs }: Grant) {
      logins.inc({ outcome: 'success' })
      logger.info({ with: kind, lifetimeMs }, 'logged in')
    },
    failed({ code, message }: Reason) {
      logins.inc({ outcome: code })
      logger.warn({ code, problem: message }, 'login failed')
    },
  }
}

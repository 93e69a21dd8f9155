import type { Logger } from 'pino'
import { Counter, type Registry } from 'prom-client'
import type { TokenError } from '../../registry-token/registry-token.ts'
import type { Discovery } from '../endpoints.ts'
import type { Credentials } from './credentials.ts'
import type { Grant } from './grant.ts'
import { createLoginGuard, type LoginGuard } from './login-guard.ts'
import { createLoginMemory, type LoginMemory, type Note } from './login-memory.ts'
import type { TokenEndpoint } from './token-endpoint.ts'

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

import { createLockout } from '../../sandbox/bluemix/login/lockout.ts'
import type { Credentials } from '../../src/bluemix/login/credentials.ts'
import type { Grant, LoginServer } from '../../src/bluemix/login/oauth.ts'
import { TokenError, type TokenErrorKind } from '../../src/issuer/issuer.ts'

export const minute = 60_000

/**
 * | login     | the login server                                        | the client sees            |
 * |-----------|---------------------------------------------------------|----------------------------|
 * | outage    | does not check the login                                | a page of HTML             |
 * | lost      | checks it, and counts it                                | a page of HTML             |
 * | never     | checks it, and counts it                                | nothing: its process ended |
 * | held_back | gets nothing: this process does not lead any more       | aborted                    |
 * | no_ca     | gets nothing: the CA cannot be read                     | that                       |
 */
export interface LoginFault {
  login?: 'outage' | 'lost' | 'never' | 'held_back' | 'no_ca'
  /** Probes fail too. */
  probe?: boolean
  /** The environment does not answer at all. */
  locate?: boolean
}

export interface SimulatedLogin extends LoginServer {
  fault: LoginFault
  /** Somebody else fails five times: logins of this account are answered with "locked" for 5 minutes. */
  lock(account: 'right' | 'wrong'): void
  /** What the login server has checked. */
  logins(): { at: number; outcome: 'granted' | 'refused' | 'unanswered' | 'locked' }[]
  probes(): number
}

/**
 * A login server that takes the key `right`. The keys `wrong...` are another account, or, with
 * `oneAccount`, the same one.
 */
export function createSimulatedLogin(now: () => number, oneAccount = false): SimulatedLogin {
  const lockout = createLockout()
  const logins: ReturnType<SimulatedLogin['logins']> = []
  let probes = 0
  const accountOf = (key: string) => (key === 'right' || oneAccount ? 'right' : 'wrong')

  function check(key: string): 'granted' | 'refused' | 'locked' {
    const account = accountOf(key)
    if (lockout.locked(account, now())) return 'locked'
    if (key !== 'right') {
      lockout.failed(account, now())
      return 'refused'
    }
    lockout.succeeded(account)
    return 'granted'
  }

  /** What the server does with a login, whatever the client sees of it. */
  function receive(key: string): 'granted' | 'refused' | 'locked' | 'unanswered' {
    const fault = server.fault.login
    const outcome = fault === 'outage' ? 'unanswered' : check(key)
    logins.push({ at: now(), outcome: fault === undefined ? outcome : 'unanswered' })
    return outcome
  }

  const server: SimulatedLogin = {
    fault: {},
    logins: () => logins,
    probes: () => probes,
    lock: account => {
      for (let count = 0; count < 5; count++) lockout.failed(account, now())
    },
    locate: async () => {
      if (server.fault.locate) throw failed('transient', 'network')
    },
    probe: async () => {
      probes += 1
      return server.fault.probe ? failed('transient', 'unavailable') : undefined
    },
    login: async credentials => {
      const unsent = unsentCodes[server.fault.login ?? '']
      if (unsent !== undefined) throw failed('transient', unsent)
      const { login: fault } = server.fault
      const outcome = receive(keyOf(credentials))
      if (fault === 'never') return new Promise<Grant>(() => {})
      return answerTo(fault === undefined ? outcome : 'unanswered')
    },
  }
  return server
}

const unsentCodes: Record<string, string> = { held_back: 'aborted', no_ca: 'ca_unusable' }

function answerTo(outcome: 'granted' | 'refused' | 'locked' | 'unanswered'): Grant {
  if (outcome === 'locked') throw failed('locked', 'account_locked')
  if (outcome === 'refused') throw failed('locked', 'login_refused')
  if (outcome === 'unanswered') throw failed('transient', 'unavailable')
  return { accessToken: 'token', refreshToken: undefined, lifetimeMs: minute }
}

function keyOf(credentials: Credentials): string {
  return credentials.kind === 'api-key' ? credentials.apiKey : credentials.password
}

function failed(kind: TokenErrorKind, code: string): TokenError {
  const words: Record<string, string> = { login_refused: 'refused', account_locked: 'locked' }
  const message = `cannot log in: ${words[code] ?? code}`
  return new TokenError(message, { kind, scope: 'environment', code })
}

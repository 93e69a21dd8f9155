import { type ClockControl, createClock } from './clock.ts'
import { createDirectory, type Directory, type User } from './directory.ts'
import { createLedger, type Ledger } from './ledger.ts'
import { createIamTokens, type IamTokens } from './login/iam-tokens.ts'
import { createSessions, type Sessions } from './login/uaa-tokens.ts'
import { settle } from './residents.ts'
import { createSecretBook, type SecretBook } from './secret-book.ts'
import { defaultSettings, type Settings } from './settings.ts'

export interface Hosts {
  api: string
  login: string
  uaa: string
  iam: string
  registry: string
}

/** State that the services of the environment share. */
export interface World {
  hosts: Hosts
  clock: ClockControl
  settings: Settings
  ledger: Ledger
  secrets: SecretBook
  directory: Directory
  sessions: Sessions
  iamTokens: IamTokens
}

/** The state of an environment with this domain, with its users and organizations. */
export function createWorld(domain: string): { world: World; user: User; stranger: User } {
  const host = (name: string) => `${name}.${domain}`
  const [api, login, uaa] = [host('api'), host('login'), host('uaa')]
  const hosts = { api, login, uaa, iam: host('iam'), registry: host('registry') }
  const clock = createClock()
  const [settings, secrets, directory] = [defaultSettings(), createSecretBook(), createDirectory()]
  const issuer = `https://${uaa}/oauth/token`
  const sessions = createSessions({ issuer, settings, secrets, directory })
  const ledger = createLedger(clock.now)
  const shared = { hosts, clock, settings, ledger, secrets, directory, sessions }
  const world = { ...shared, iamTokens: createIamTokens(shared) }
  return { world, ...settle(directory) }
}

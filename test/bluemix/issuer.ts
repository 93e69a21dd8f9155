import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import {
  type BluemixEnvironment,
  startBluemixEnvironment,
} from '../../sandbox/bluemix/environment.ts'
import { type BluemixSettings, createBluemixIssuer } from '../../src/bluemix/bluemix-issuer.ts'
import type { Note } from '../../src/bluemix/login/login-record.ts'
import { type Issuer, type ListedToken, TokenError } from '../../src/issuer/issuer.ts'

export interface Fixture {
  environment: BluemixEnvironment
  issuer: Issuer
  settings: BluemixSettings
  /** Writes a credential file; undefined removes it. */
  credential(name: string, content: string | undefined): Promise<void>
  /** The TokenError that the work fails with; any other outcome fails the test. */
  failure(work: Promise<unknown>): Promise<TokenError>
  /** Moves the clock of pullpass; the environment keeps its own. */
  advance(ms: number): void
  /** A counter's value, zero where it was never touched. */
  count(name: string, labels: Record<string, string>): Promise<number>
  /** Everything logged so far. */
  log(): string
  mint(description?: string, organization?: string): Promise<string>
  /** The rows of a list, once it was complete. */
  list(organization?: string): Promise<ListedToken[] | 'unsupported'>
}

export const live = new AbortController().signal

interface Test {
  teardown(end: () => Promise<void>): void
}

/**
 * An environment, and an issuer that reaches it as in production: by name, through HTTPS_PROXY,
 * trusting a private CA, with its API key in a file. At the end, every log line, metric and error
 * message of the test is searched for every secret that the environment ever gave or took.
 */
export async function startFixture(
  t: Test,
  change: Partial<BluemixSettings> = {},
): Promise<Fixture> {
  const environment = await startBluemixEnvironment()
  process.env.HTTPS_PROXY = environment.gateway
  const { hosts } = environment
  const folder = await mkdtemp(join(tmpdir(), 'pullpass-credentials-'))
  const credential = async (name: string, content: string | undefined) => {
    const file = join(folder, name)
    await (content === undefined ? rm(file) : writeFile(file, content))
  }
  await credential('api-key', `${environment.apiKey}\n`)
  const said: string[] = []
  const metrics = new Registry()
  let offset = 0
  const settings: BluemixSettings = {
    api: `https://${hosts.api}`,
    login: 'uaa',
    iam: `https://${hosts.iam}`,
    registryUrl: `https://${hosts.registry}`,
    registryHost: hosts.registry,
    account: undefined,
    credentialsDirectory: folder,
    caFile: environment.caFile,
    timeoutMs: 5000,
    ...change,
  }
  const logger = pino({ level: 'trace' }, { write: line => said.push(line) })
  const now = () => Date.now() + offset
  const elapsed = () => performance.now() + offset
  const note = createNote()
  const issuer = createBluemixIssuer({ logger, metrics, now, elapsed, note }, settings)
  t.teardown(async () => {
    await issuer.close()
    const all = [...said, await metrics.metrics()].join('\n')
    const leaked = environment.issued().filter(secret => all.includes(secret))
    await environment.stop()
    await rm(folder, { recursive: true })
    if (leaked.length > 0) throw new Error(`${leaked.length} secrets in logs, metrics or errors`)
  })
  return {
    environment,
    issuer,
    settings,
    credential,
    advance: ms => {
      offset += ms
    },
    failure: async work => {
      const error = await work.then(
        () => undefined,
        failed => failed,
      )
      if (!(error instanceof TokenError)) throw new Error('no TokenError', { cause: error })
      said.push(error.message, String(error.stack), JSON.stringify(error))
      return error
    },
    count: async (name, labels) => {
      const found = await metrics.getSingleMetric(name)?.get()
      const same = found?.values.find(({ labels: own }) =>
        Object.entries(labels).every(([key, value]) => own[key] === value),
      )
      return same?.value ?? 0
    },
    log: () => said.join(''),
    list: async (organization = 'acme') => {
      const rows: ListedToken[] = []
      const listed = await issuer.list(organization, row => rows.push(row), live)
      return listed === 'unsupported' ? listed : rows
    },
    mint: async (description = 'pullpass/uid/shop', organization = 'acme') =>
      (await issuer.mint({ organization, description, permanent: true }, live)).text,
  }
}

/** A record that exists as long as the test runs. */
export function createNote(): Note {
  let kept: string | undefined
  return {
    read: async () => kept,
    write: async text => {
      kept = text
    },
  }
}

import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { TokenError, type TokenIssuer } from '../issuer/issuer.ts'
import { createDiscovery, withoutSlash } from './endpoints.ts'
import { environmentFailure } from './http/answer.ts'
import { createRequest, type Request } from './http/request.ts'
import { type CredentialFiles, createCredentialFiles } from './login/credentials.ts'
import type { Note } from './login/lockout-guard.ts'
import { createTokenEndpoint } from './login/oauth.ts'
import { createSession } from './login/session.ts'
import { createOrganizations } from './organizations.ts'
import { createRegistry } from './registry.ts'

export interface BluemixSettings {
  /** `https://api.<domain>` */
  api: string
  login: 'uaa' | 'iam'
  /** Base of IAM; for `login: iam` only. */
  iam: string | undefined
  /** Where the token API is: `https://registry.<domain>`. */
  registryUrl: string
  /** `host[:port]`, as images name the registry. */
  registryHost: string
  credentialsDirectory: string
  caFile: string | undefined
  /** For each request, from its start to the end of its answer. */
  timeoutMs: number
}

export interface BluemixIssuer extends TokenIssuer {
  /** What is wrong with the environment as a whole (login, network), for as long as it is. */
  problem(): TokenError | undefined
  /** A credential file has changed: a refused login counts no more, so try at once. */
  onCredentialChange(listener: () => void): void
  /** Begins to look after the credential files. */
  start(): void
  /** Ends everything under way; nothing can be asked afterwards. */
  close(): Promise<void>
}

/**
 * Issues registry tokens from a Bluemix Dedicated environment: discovery, login, organization,
 * token, which are steps 1 to 4 of IBM's procedure of 2017. Nothing is asked before it is needed.
 */
export function createBluemixIssuer(options: {
  settings: BluemixSettings
  logger: Logger
  metrics: Registry
  /** Where logins are noted for the next process, so that no restart locks the account. */
  note: Note
  /** Asked right before each request leaves; false holds it back. */
  mayLogIn?: () => boolean
  /** The wall clock in epoch milliseconds. */
  now?: () => number
}): BluemixIssuer {
  const { settings, logger, metrics, note, now = Date.now } = options
  const controller = new AbortController()
  const credentials = createCredentialFiles(settings.credentialsDirectory)
  const shared = { logger, metrics, note, now, closing: controller.signal }
  const { request, close } = createRequest({ ...options, ...settings, ...shared })
  const { session, registry } = connect({ ...shared, settings, credentials, request })
  const { watched, problem } = watch(credentials)
  return {
    mint: (...about) => watched(registry.mint(...about)),
    list: (...about) => watched(registry.list(...about)),
    revoke: (...about) => watched(registry.revoke(...about)),
    // Asks the registry alone, so it does not tell whether the rest works.
    accepts: (...about) => registry.accepts(...about).catch(rethrow),
    problem: () => session.refusal() ?? credentials.problem() ?? problem(),
    onCredentialChange: listener => credentials.onChange(listener),
    start: credentials.start,
    close: async () => {
      controller.abort()
      credentials.stop()
      await close()
    },
  }
}

interface Parts {
  settings: BluemixSettings
  credentials: CredentialFiles
  request: Request
  logger: Logger
  metrics: Registry
  note: Note
  now: () => number
  closing: AbortSignal
}

function connect(parts: Parts) {
  const { settings } = parts
  const api = withoutSlash(settings.api)
  const registryUrl = withoutSlash(settings.registryUrl)
  const iam = settings.login === 'iam' ? withoutSlash(settings.iam ?? '') : undefined
  const discovery = createDiscovery({ ...parts, api })
  const tokenEndpoint = createTokenEndpoint({ ...parts, iam, discovery })
  const session = createSession({ ...parts, discovery, tokenEndpoint })
  const organizations = createOrganizations({ ...parts, api, session, discovery })
  const { registryHost } = settings
  const registry = createRegistry({ ...parts, registryUrl, registryHost, session, organizations })
  return { session, registry }
}

/** Remembers what was wrong with the environment until something works or the key changes. */
function watch(credentials: CredentialFiles) {
  let problem: TokenError | undefined
  credentials.onChange(() => {
    problem = undefined
  })
  async function watched<T>(work: Promise<T>): Promise<T> {
    try {
      const result = await work
      problem = undefined
      return result
    } catch (error) {
      const failed = asTokenError(error)
      if (failed.scope === 'environment') problem = failed
      throw failed
    }
  }
  return { watched, problem: () => problem }
}

function rethrow(error: unknown): never {
  throw asTokenError(error)
}

/** A bug must not look like an answer, and its text may hold anything: only its name goes on. */
function asTokenError(error: unknown): TokenError {
  if (error instanceof TokenError) return error
  const name = error instanceof Error ? error.name : typeof error
  return environmentFailure(
    'transient',
    'internal',
    `internal error in the Bluemix client: ${name}`,
  )
}

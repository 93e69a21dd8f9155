import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { type Issuer, TokenError } from '../issuer/issuer.ts'
import { createDiscovery, withoutSlash } from './endpoints.ts'
import { environmentFailure } from './http/answer.ts'
import { createRequest, type Request } from './http/request.ts'
import { type CredentialFiles, createCredentialFiles } from './login/credentials.ts'
import { createLockoutGuard } from './login/lockout-guard.ts'
import type { Note } from './login/login-record.ts'
import { createTokenEndpoint } from './login/oauth.ts'
import { createSession } from './login/session.ts'
import { createOrganizations } from './organizations.ts'
import { createRegistry } from './registry.ts'
import { createAccepts } from './registry-login.ts'

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
  /** The header `Account` of the token API. */
  account: string | undefined
  credentialsDirectory: string
  caFile: string | undefined
  /** For each request, from its start to the end of its answer. */
  timeoutMs: number
}

interface BluemixDependencies {
  logger: Logger
  metrics: Registry
  /** Where logins are noted for the next process, so that no restart locks the account. */
  note: Note
  /** Asked right before each request leaves; false holds it back. */
  mayLogIn?: () => boolean
  /** The wall clock in epoch milliseconds. */
  now?: () => number
  /** Monotonic milliseconds. */
  elapsed?: () => number
}

/**
 * Issues registry tokens from a Bluemix Dedicated environment: discovery, login, organization,
 * token, which are steps 1 to 4 of IBM's procedure of 2017. Nothing is asked before it is needed.
 */
export function createBluemixIssuer(
  dependencies: BluemixDependencies,
  settings: BluemixSettings,
): Issuer {
  const { logger, metrics, note, mayLogIn, now = Date.now } = dependencies
  const controller = new AbortController()
  const closing = controller.signal
  const { caFile, timeoutMs, credentialsDirectory } = settings
  const credentials = createCredentialFiles(credentialsDirectory)
  const { elapsed = performance.now.bind(performance) } = dependencies
  const { request, close } = createRequest(
    { logger, metrics, closing, mayLogIn },
    { caFile, timeoutMs },
  )
  const { session, registry } = connect(
    { credentials, request, logger, metrics, note, now, elapsed, closing },
    settings,
  )
  const { watched, problem } = watch(credentials)
  return {
    mint: (...about) => watched(registry.mint(...about)),
    list: (...about) => watched(registry.list(...about)),
    text: (...about) => watched(registry.text(...about)),
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
  credentials: CredentialFiles
  request: Request
  logger: Logger
  metrics: Registry
  note: Note
  now: () => number
  elapsed: () => number
  closing: AbortSignal
}

function connect(parts: Parts, settings: BluemixSettings) {
  const { credentials, request, logger, metrics, note, now, elapsed, closing } = parts
  const { registryHost, account } = settings
  const api = withoutSlash(settings.api)
  const registryUrl = withoutSlash(settings.registryUrl)
  const iam = settings.login === 'iam' ? withoutSlash(settings.iam ?? '') : undefined
  const discovery = createDiscovery({ request, logger, now }, { api })
  const tokenEndpoint = createTokenEndpoint({ discovery, request, now }, { iam })
  const guard = createLockoutGuard(
    { server: tokenEndpoint, note, logger, metrics, now, elapsed },
    { loginServer: iam ?? api },
  )
  const session = createSession({ credentials, guard, tokenEndpoint, request, now, closing })
  const organizations = createOrganizations({ session, discovery, now, closing }, { api })
  const accepts = createAccepts({ request, now }, { registryUrl, registryHost })
  const registry = createRegistry(
    { session, organizations, accepts, request, logger, now },
    { registryUrl, account },
  )
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

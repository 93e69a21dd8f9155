import type { Logger } from 'pino'
import {
  changed,
  type ListedToken,
  type MintedToken,
  type MintRequest,
  TokenError,
  type TokenRequests,
} from '../issuer/issuer.ts'
import { failure, organizationFailure, record, unexpectedAnswer } from './http/answer.ts'
import type { Ask, Request } from './http/request.ts'
import type { Session } from './login/session.ts'
import type { Organizations } from './organizations.ts'
import { type Accepts, pingOf } from './registry-login.ts'
import { createListReader, mintedToken, tokenText } from './tokens.ts'

interface Dependencies {
  session: Session
  organizations: Organizations
  accepts: Accepts
  request: Request
  logger: Logger
  now: () => number
}

interface Settings {
  registryUrl: string
  /** The header `Account`, for registries that ask for it. */
  account: string | undefined
}

interface Registry extends Dependencies, Settings {}

/*
 * The registry's token API (bluemix-go api/container/registryv1/tokens.go, and IBM's procedure of
 * 2017 for the headers `Authorization` and `Organization`):
 *
 * | operation | request                                                  | done when            |
 * |-----------|----------------------------------------------------------|----------------------|
 * | mint      | POST /api/v1/tokens?permanent=true|false&description=D   | 2xx with a token     |
 * | list      | GET /api/v1/tokens                                       | 2xx; 404, 405, 501:  |
 * |           |                                                          | it cannot list       |
 * | text      | GET /api/v1/tokens/ID                                    | 2xx; 404 of the      |
 * |           |                                                          | registry: gone       |
 * | revoke    | DELETE /api/v1/tokens/ID                                 | 2xx, 404             |
 *
 * `write` is never sent: absent, the token only pulls. Nothing is ever revoked by description.
 */
export function createRegistry(dependencies: Dependencies, settings: Settings): TokenRequests {
  const { session, organizations, accepts, request, logger, now } = dependencies
  const { registryUrl, account } = settings
  const registry: Registry = {
    session,
    organizations,
    accepts,
    request,
    logger,
    now,
    registryUrl,
    account,
  }
  return {
    mint: (wish, signal) => mint(registry, wish, signal),
    list: (organization, row, signal) => list(registry, { organization, row }, signal),
    text: (organization, id, signal) => textOf(registry, { organization, id }, signal),
    revoke: (organization, id, signal) => revoke(registry, { organization, id }, signal),
    accepts,
  }
}

async function mint(
  registry: Registry,
  { organization, description, permanent }: MintRequest,
  signal: AbortSignal,
): Promise<MintedToken> {
  const action = `mint a token in organization "${organization}"`
  const path = `?permanent=${permanent}&description=${encodeURIComponent(description)}`
  const call = { operation: 'mint', method: 'POST', organization, path, action } as const
  const { guid, answer } = await inOrganization(registry, call, signal)
  const token = mintedToken(answer.json)
  if (token === undefined) throw concerning(organization, unexpectedAnswer(action, answer))
  registry.logger.info({ organization: guid, description, token: token.id }, 'token minted')
  return token
}

async function list(
  registry: Registry,
  { organization, row }: { organization: string; row: (token: ListedToken) => void },
  signal: AbortSignal,
): Promise<'complete' | 'unsupported'> {
  const action = `list the tokens of organization "${organization}"`
  const reader = createListReader(row)
  const call = { operation: 'list', method: 'GET', organization, path: '', action } as const
  const others = { body: reader.write, accepted: [404, 405, 501] }
  const { answer } = await inOrganization(registry, { ...call, ...others }, signal)
  if (answer.status >= 300) return 'unsupported'
  if (reader.isComplete() && answer.status !== 206) return 'complete'
  throw concerning(organization, unexpectedAnswer(action, answer))
}

async function textOf(
  registry: Registry,
  { organization, id }: { organization: string; id: string },
  signal: AbortSignal,
): Promise<string | 'gone' | undefined> {
  const action = `read a token of organization "${organization}"`
  const path = pathOf(id, action, organization)
  const call = { operation: 'get', method: 'GET', organization, path, action } as const
  const { answer } = await inOrganization(registry, { ...call, accepted: [404, 405, 501] }, signal)
  if (answer.status < 300) return tokenText(record(answer.json).token)
  // A router says 404 too, where there is no such API, but not in JSON.
  return answer.status === 404 && answer.json !== undefined ? 'gone' : undefined
}

async function revoke(
  registry: Registry,
  { organization, id }: { organization: string; id: string },
  signal: AbortSignal,
): Promise<void> {
  const action = `revoke a token of organization "${organization}"`
  const path = pathOf(id, action, organization)
  const call = { operation: 'revoke', method: 'DELETE', organization, path, action } as const
  const { guid } = await inOrganization(registry, { ...call, accepted: [404] }, signal)
  registry.logger.info({ organization: guid, token: id }, 'token revoked')
}

/** The id becomes a part of the path; an empty one would name all tokens. */
function pathOf(id: string, action: string, organization: string): string {
  if (/^[\w-]{1,200}$/.test(id)) return `/${id}`
  const message = `cannot ${action}: its id has characters of no id`
  throw concerning(organization, organizationFailure('unusable_id', message))
}

interface Call {
  operation: string
  method: 'GET' | 'POST' | 'DELETE'
  organization: string
  /** After `/api/v1/tokens`. */
  path: string
  /** For messages. */
  action: string
  body?: (chunk: Uint8Array) => boolean
  /** Statuses beside 2xx that the caller understands. */
  accepted?: number[]
}

/** Rejects with a TokenError that names the organization where the failure is its own. */
async function inOrganization(registry: Registry, call: Call, signal: AbortSignal) {
  const { organization, action, accepted = [] } = call
  try {
    const found = await ask(registry, call, signal)
    const { status } = found.answer
    if (status < 300 || accepted.includes(status)) return found
    throw failure('registry', action, found.answer, registry.now())
  } catch (error) {
    if (!(error instanceof TokenError)) throw error
    const isOwn = await isOfOrganization(error, registry, signal)
    throw isOwn ? concerning(organization, error) : error
  }
}

/** Asks as a member of the organization; a refusal may mean that it was made anew meanwhile. */
async function ask(
  { organizations, registryUrl, account, session }: Registry,
  { operation, method, organization, path, body }: Call,
  signal: AbortSignal,
) {
  const url = `${registryUrl}/api/v1/tokens${path}`
  const askAs = (guid: string) => {
    const headers = { organization: guid, ...(account !== undefined && { account }) }
    const ask: Ask = { operation, method, url, headers, sent: [], ...(body && { body }) }
    return session.authorized(ask, signal)
  }
  const guid = await organizations.guid(organization, signal)
  const answer = await askAs(guid)
  if (answer.status !== 401) return { guid, answer }
  const again = await organizations.guidNow(organization, signal)
  return again === guid ? { guid, answer } : { guid: again, answer: await askAs(again) }
}

function concerning(organization: string, error: TokenError): TokenError {
  const isNamed = error.message.includes(`"${organization}"`)
  const message = isNamed ? error.message : `organization "${organization}": ${error.message}`
  return changed(error, { scope: 'organization', organization }, message)
}

const outages = ['unavailable', 'network', 'timeout']
const pingMs = 3000

/**
 * Whether a failure concerns the one organization. Of an outage it does where the registry itself
 * works: then the other organizations may work too.
 */
async function isOfOrganization(
  { scope, kind, code, request }: TokenError,
  registry: Registry,
  signal: AbortSignal,
): Promise<boolean> {
  if (scope === 'organization') return true
  if (kind !== 'transient' || request !== undefined) return false
  if (!outages.includes(code)) return code === 'rate_limited'
  const left = AbortSignal.any([signal, AbortSignal.timeout(pingMs)])
  return registry.request(pingOf(registry.registryUrl), left).then(
    ({ status }) => status < 500,
    () => false,
  )
}

import type { Logger } from 'pino'
import type { ListedToken, RegistryToken, TokenIssuer } from '../registry-token/registry-token.ts'
import { failure, organizationFailure, unexpectedAnswer } from './http/failure.ts'
import type { Request } from './http/request.ts'
import type { Session } from './login/session.ts'
import type { Organizations } from './organizations.ts'
import { accepts } from './registry-login.ts'
import { listedTokens, mintedToken } from './tokens.ts'

interface Options {
  registryUrl: string
  registryHost: string
  session: Session
  organizations: Organizations
  request: Request
  logger: Logger
  now: () => number
}

/** A row of the list is about a kilobyte, and a busy organization has thousands. */
const mostBytes = 16 * 1024 * 1024

/*
 * The registry's token API (bluemix-go api/container/registryv1/tokens.go, and IBM's procedure of
 * 2017 for the headers `Authorization` and `Organization`):
 *
 * | operation | request                                                | done when            |
 * |-----------|--------------------------------------------------------|----------------------|
 * | mint      | POST /api/v1/tokens?permanent=true&description=D       | 2xx with a token     |
 * | list      | GET /api/v1/tokens                                     | 2xx; 404, 405, 501:  |
 * |           |                                                        | it cannot list       |
 * | revoke    | DELETE /api/v1/tokens/ID                               | 2xx, 404             |
 *
 * `write` is never sent: absent, the token only pulls. Nothing is ever revoked by description.
 */
export function createRegistry(options: Options): TokenIssuer {
  return {
    mint: (organization, description, signal) =>
      mint(options, { organization, description }, signal),
    list: (organization, signal) => list(options, organization, signal),
    revoke: (organization, id, signal) => revoke(options, { organization, id }, signal),
    accepts: (token, signal) => accepts(options, token, signal),
  }
}

async function mint(
  options: Options,
  { organization, description }: { organization: string; description: string },
  signal: AbortSignal,
): Promise<RegistryToken> {
  const action = `mint a token in organization "${organization}"`
  const path = `?permanent=true&description=${encodeURIComponent(description)}`
  const call = { operation: 'mint', method: 'POST', organization, path } as const
  const { guid, answer } = await inOrganization(options, call, signal)
  if (answer.status >= 300) throw failure('registry', action, answer, options.now())
  const token = mintedToken(answer.json)
  if (token === undefined) throw unexpectedAnswer(action, answer)
  options.logger.info({ organization: guid, description, token: token.id }, 'token minted')
  return token
}

async function list(
  options: Options,
  organization: string,
  signal: AbortSignal,
): Promise<ListedToken[] | 'unsupported'> {
  const action = `list the tokens of organization "${organization}"`
  const call = { operation: 'list', method: 'GET', organization, path: '' } as const
  const { answer } = await inOrganization(options, call, signal)
  if ([404, 405, 501].includes(answer.status)) return 'unsupported'
  if (answer.status >= 300) throw failure('registry', action, answer, options.now())
  const tokens = listedTokens(answer.json)
  if (tokens === undefined) throw unexpectedAnswer(action, answer)
  return tokens
}

async function revoke(
  options: Options,
  { organization, id }: { organization: string; id: string },
  signal: AbortSignal,
): Promise<void> {
  const action = `revoke a token of organization "${organization}"`
  // It becomes a part of the path; an empty one would name all tokens.
  if (!/^[\w-]{1,200}$/.test(id)) {
    throw organizationFailure('unusable_id', `cannot ${action}: its id has characters of no id`)
  }
  const call = { operation: 'revoke', method: 'DELETE', organization, path: `/${id}` } as const
  const { guid, answer } = await inOrganization(options, call, signal)
  const gone = answer.status < 300 || answer.status === 404
  if (!gone) throw failure('registry', action, answer, options.now())
  options.logger.info({ organization: guid, token: id }, 'token revoked')
}

interface Call {
  operation: string
  method: 'GET' | 'POST' | 'DELETE'
  organization: string
  /** After `/api/v1/tokens`. */
  path: string
}

/** Asks as a member of the organization; a refusal may mean that it was made anew meanwhile. */
async function inOrganization(options: Options, call: Call, signal: AbortSignal) {
  const { organizations, registryUrl, session } = options
  const { operation, method, organization } = call
  const url = `${registryUrl}/api/v1/tokens${call.path}`
  const ask = { operation, method, url, sent: [], maxBytes: mostBytes }
  const askAs = (guid: string) =>
    session.authorized({ ...ask, headers: { organization: guid } }, signal)
  const guid = await organizations.guid(organization, signal)
  const answer = await askAs(guid)
  if (answer.status !== 401) return { guid, answer }
  const again = await organizations.guidNow(organization, signal)
  return again === guid ? { guid, answer } : { guid: again, answer: await askAs(again) }
}

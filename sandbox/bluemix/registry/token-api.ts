import type { FastifyReply } from 'fastify'
import type { Organization } from '../directory.ts'
import type { Operation } from '../faults.ts'
import {
  type App,
  at,
  type Json,
  type Request,
  uniqueFields,
  unknownName,
} from '../wire/request.ts'
import type { World } from '../world.ts'
import { malformed, notFound, type RegistryError, refuse } from './registry-error.ts'
import { listedRow, type RegistryTokens, type TokenRow } from './registry-tokens.ts'

/**
 * `registry/api/v1/tokens`, with `Authorization: Bearer <UAA token>` (that spelling) and
 * `Organization: <guid>`.
 *
 * | request                                       | answer                                  |
 * |-----------------------------------------------|-----------------------------------------|
 * | POST ?permanent= &write= &description=        | 200 {"token"}; no body allowed          |
 * | GET                                           | 200 {"tokens":[...]}, or a page of them |
 * | GET /:id                                      | 200 {"token"}, 404                      |
 * | DELETE /:id                                   | 204 (or 200), 404                       |
 * | DELETE ?secondaryOwner=<description>          | 204 (or 200), also if there was none    |
 * | token not good, no or foreign organization,   | 401 CRG0009E                            |
 * | no `Account` where one is required            |                                         |
 * | organization suspended                        | 403 CRG0020E                            |
 * | any other parameter, value or shape           | 400 (the code is not known: CRG0000E)   |
 *
 * Absent `write` is read-only, absent `permanent` is 24 hours (bluemix-go: registryv1/tokens.go).
 */
export function addTokenApi(app: App, world: World, tokens: RegistryTokens): void {
  const handle = (operation: Operation, act: (call: Call) => Result) =>
    at(world.hosts.registry, operation, (request, reply) => {
      const organization = authorize(world, request)
      const result = Array.isArray(organization)
        ? organization
        : act({ world, tokens, request, reply, organization })
      return Array.isArray(result) ? refuse(reply, result, request.now) : reply.send(result)
    })
  app.post('/api/v1/tokens', handle('mint', mint))
  app.get('/api/v1/tokens', handle('list', list))
  app.get('/api/v1/tokens/:id', handle('get', get))
  app.delete('/api/v1/tokens', handle('revoke', revokeByDescription))
  app.delete('/api/v1/tokens/:id', handle('revoke', revoke))
}

interface Call {
  world: World
  tokens: RegistryTokens
  request: Request
  reply: FastifyReply
  organization: Organization
}

/** The body of the answer, or the refusal. */
type Result = Json | undefined | RegistryError

function authorize(world: World, request: Request): Organization | RegistryError {
  const { refuseTokens } = request.fault
  const organization = organizationOf(world, request)
  if (organization === undefined) {
    return [401, 'CRG0009E', 'You are not authorized to access the specified account.']
  }
  if (refuseTokens === 'cannot_authenticate') {
    const words = 'An error occurred when authenticating your request with IBM Cloud.'
    return [401, 'CRG0014E', words]
  }
  if (organization.suspended || refuseTokens === 'not_authorized') {
    return [403, 'CRG0020E', 'You are not authorized to access the specified resource.']
  }
  return organization
}

function organizationOf(world: World, request: Request): Organization | undefined {
  const { headers, fault, now } = request
  const token = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1]
  const claims = token && world.sessions.verify(token, now, 'registry')
  const user = claims && world.directory.userById(claims.user_id)
  if (!user || fault.accessTokens === 'expired') return undefined
  const { account = headers.account } = world.settings
  if (headers.account !== account) return undefined
  return world.directory.organizationsOf(user).find(({ guid }) => guid === headers.organization)
}

function mint({ world, tokens, request, organization }: Call): Result {
  const fields = uniqueFields(request.query)
  const unexpected = unknownName(request.query.keys(), ['permanent', 'write', 'description'])
  if (!fields || unexpected || request.body) return malformed(unexpected ?? 'request')
  const flags = ['permanent', 'write'].map(name => fields.get(name) ?? 'false')
  const bad = flags.find(value => value !== 'true' && value !== 'false')
  if (bad !== undefined) return malformed(bad)
  const [permanent, write] = flags.map(value => value === 'true')
  const description = fields.get('description') ?? ''
  const wish = { organization, description, permanent: permanent === true, write: write === true }
  const row = tokens.mint(wish, request.now)
  world.secrets.addRegistryToken(row.text)
  // A token that stays revoked ended before it was given.
  const expiry = row.revokedAt ?? row.expiry * 1000
  world.ledger.mint({
    ...{ at: request.now, organization: organization.name, description, id: row.id },
    ...{ permanent: wish.permanent, write: wish.write, text: row.text, expiry },
  })
  return { token: row.text }
}

function list({ world, tokens, request, organization }: Call): Result {
  const { fault, now: at, query } = request
  const page = /^page=([1-9]\d*)$/.exec(String(query))?.[1]
  if (query.size > 0 && (page === undefined || !fault.nextUrl)) return malformed('query')
  const asOf = at - (fault.lagMs ?? 0)
  const all = tokens.list(organization, at, asOf)
  const size = fault.mostRows ?? all.length
  const number = Number(page ?? 1)
  const end = number * size
  const rows = all.slice(end - size, end)
  world.ledger.list({ at, organization: organization.name, count: rows.length })
  const next = end < all.length ? `/api/v1/tokens?page=${number + 1}` : null
  return {
    tokens: rows.map(row => listedRow(row, { asOf, tokenText: fault.tokenText })),
    ...(fault.nextUrl && { next_url: next }),
  }
}

function get(call: Call): Result {
  const row = rowsOfOrganization(call).find(({ id }) => id === call.request.params.id)
  if (!row) return notFound
  const { tokenText } = call.request.fault
  if (tokenText === undefined) return { token: row.text }
  return tokenText === 'empty' ? { token: '' } : {}
}

function revoke(call: Call): Result {
  if (call.request.query.size > 0) return malformed('query')
  const row = rowsOfOrganization(call).find(({ id }) => id === call.request.params.id)
  if (!row) return notFound
  return revoked(call, [row])
}

function revokeByDescription(call: Call): Result {
  const description = uniqueFields(call.request.query)?.get('secondaryOwner')
  const alone = call.request.query.size === 1
  if (!description || !alone) return malformed('secondaryOwner')
  return revoked(
    call,
    rowsOfOrganization(call).filter(row => row.description === description),
  )
}

function rowsOfOrganization({ tokens, organization, request }: Call): TokenRow[] {
  return tokens.list(organization, request.now).filter(row => row.revokedAt === undefined)
}

function revoked({ world, request, reply, organization }: Call, rows: TokenRow[]): Result {
  for (const row of rows) {
    row.revokedAt = request.now
    const { id, description } = row
    world.ledger.revoke({ at: request.now, organization: organization.name, id, description })
  }
  reply.code(world.settings.revokeStatus)
  return undefined
}

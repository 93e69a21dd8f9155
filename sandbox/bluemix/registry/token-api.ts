import type { Organization } from '../directory.ts'
import {
  type Answer,
  type Handler,
  json,
  type Received,
  uniqueFields,
  unknownName,
} from '../wire/exchange.ts'
import type { World } from '../world.ts'
import { malformed, notFound, refuse } from './registry-error.ts'
import { listedRow, type RegistryTokens, type TokenRow } from './registry-tokens.ts'

/**
 * `registry/api/v1/tokens`, with `Authorization: Bearer <UAA token>` (that spelling) and
 * `Organization: <guid>`.
 *
 * | request                                       | answer                                  |
 * |-----------------------------------------------|-----------------------------------------|
 * | POST ?permanent= &write= &description=        | 200 {"token"}; no body allowed          |
 * | GET                                           | 200 {"tokens":[...]}                    |
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
export function createTokenApi(world: World, tokens: RegistryTokens): Handler {
  return received => {
    const organization = authorize(world, received)
    if (!organization) {
      const words = 'You are not authorized to access the specified account.'
      return refuse(received, [401, 'CRG0009E', words])
    }
    const refusal = refusalOf(received, organization)
    if (refusal !== undefined) return refuse(received, refusal)
    const id = received.path.split('/')[4]
    const act = actions[`${received.method}${id === undefined ? '' : ' id'}`]
    if (!act) return refuse(received, [405, 'CRG0000E', 'Method not allowed'])
    return act({ world, tokens, received, organization, id: id ?? '' })
  }
}

interface Call {
  world: World
  tokens: RegistryTokens
  received: Received
  organization: Organization
  id: string
}

const actions: Record<string, (call: Call) => Answer> = {
  POST: mint,
  GET: list,
  'GET id': get,
  DELETE: revokeByDescription,
  'DELETE id': revoke,
}

function authorize(world: World, received: Received): Organization | undefined {
  const { headers, fault, now } = received
  const token = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1]
  const claims = token && world.sessions.verify(token, now, 'registry')
  const user = claims && world.directory.userById(claims.user_id)
  if (!user || fault.accessTokens === 'expired') return undefined
  const { account = headers.account } = world.settings
  if (headers.account !== account) return undefined
  return world.directory.organizationsOf(user).find(({ guid }) => guid === headers.organization)
}

function refusalOf(
  { fault: { refuseTokens } }: Received,
  { suspended }: Organization,
): [number, string, string] | undefined {
  if (refuseTokens === 'cannot_authenticate') {
    const words = 'An error occurred when authenticating your request with IBM Cloud.'
    return [401, 'CRG0014E', words]
  }
  if (!suspended && refuseTokens !== 'not_authorized') return undefined
  return [403, 'CRG0020E', 'You are not authorized to access the specified resource.']
}

function mint({ world, tokens, received, organization }: Call): Answer {
  const fields = uniqueFields(received.query)
  const unexpected = unknownName(received.query.keys(), ['permanent', 'write', 'description'])
  if (!fields || unexpected || received.body !== '')
    return malformed(received, unexpected ?? 'request')
  const flags = ['permanent', 'write'].map(name => fields.get(name) ?? 'false')
  const bad = flags.find(value => value !== 'true' && value !== 'false')
  if (bad !== undefined) return malformed(received, bad)
  const [permanent, write] = flags.map(value => value === 'true')
  const description = fields.get('description') ?? ''
  const wish = { organization, description, permanent: permanent === true, write: write === true }
  const row = tokens.mint(wish, received.now)
  world.secrets.addRegistryToken(row.text)
  // A token that stays revoked ended before it was given.
  const expiry = row.revokedAt ?? row.expiry * 1000
  world.ledger.mint({
    ...{ at: received.now, organization: organization.name, description, id: row.id },
    ...{ permanent: wish.permanent, write: wish.write, text: row.text, expiry },
  })
  return json(200, { token: row.text })
}

function list({ world, tokens, received, organization }: Call): Answer {
  if (received.query.size > 0) return malformed(received, 'query')
  const { fault, now: at } = received
  const asOf = at - (fault.lagMs ?? 0)
  const all = tokens.list(organization, at, asOf)
  const rows = all.slice(0, fault.mostRows)
  world.ledger.list({ at, organization: organization.name, count: rows.length })
  const next = fault.nextUrl && rows.length < all.length ? '/api/v1/tokens?page=2' : null
  return json(200, {
    tokens: rows.map(row => listedRow(row, { asOf, tokenText: fault.tokenText })),
    ...(fault.nextUrl && { next_url: next }),
  })
}

function get(call: Call): Answer {
  const row = rowsOfOrganization(call).find(({ id }) => id === call.id)
  if (!row) return notFound(call.received)
  const { tokenText } = call.received.fault
  if (tokenText === undefined) return json(200, { token: row.text })
  return json(200, tokenText === 'empty' ? { token: '' } : {})
}

function revoke(call: Call): Answer {
  if (call.received.query.size > 0) return malformed(call.received, 'query')
  const row = rowsOfOrganization(call).find(({ id }) => id === call.id)
  if (!row) return notFound(call.received)
  return revoked(call, [row])
}

function revokeByDescription(call: Call): Answer {
  const description = uniqueFields(call.received.query)?.get('secondaryOwner')
  const alone = call.received.query.size === 1
  if (!description || !alone) return malformed(call.received, 'secondaryOwner')
  return revoked(
    call,
    rowsOfOrganization(call).filter(row => row.description === description),
  )
}

function rowsOfOrganization({ tokens, organization, received }: Call): TokenRow[] {
  return tokens.list(organization, received.now).filter(row => row.revokedAt === undefined)
}

function revoked({ world, received, organization }: Call, rows: TokenRow[]): Answer {
  for (const row of rows) {
    row.revokedAt = received.now
    const { id, description } = row
    world.ledger.revoke({ at: received.now, organization: organization.name, id, description })
  }
  return { status: world.settings.revokeStatus, headers: {}, text: '' }
}

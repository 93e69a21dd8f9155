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
 * | token not good, no or foreign organization    | 401 CRG0009E                            |
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
  return world.directory.organizationsOf(user).find(({ guid }) => guid === headers.organization)
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
  world.ledger.mint({
    ...{ at: received.now, organization: organization.name, description, id: row.id },
    ...{ permanent: wish.permanent, write: wish.write, text: row.text, expiry: row.expiry * 1000 },
  })
  return json(200, { token: row.text })
}

function list({ world, tokens, received, organization }: Call): Answer {
  if (received.query.size > 0) return malformed(received, 'query')
  const rows = tokens.list(organization, received.now)
  const at = received.now
  world.ledger.list({ at, organization: organization.name, count: rows.length })
  return json(200, { tokens: rows.map(row => listedRow(row, received.fault.tokenText)) })
}

function get(call: Call): Answer {
  const row = rowsOfOrganization(call).find(({ id }) => id === call.id)
  return row ? json(200, { token: row.text }) : notFound(call.received)
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
  return tokens.list(organization, received.now).filter(row => !row.revoked)
}

function revoked({ world, received, organization }: Call, rows: TokenRow[]): Answer {
  for (const row of rows) {
    row.revoked = true
    const { id, description } = row
    world.ledger.revoke({ at: received.now, organization: organization.name, id, description })
  }
  return { status: world.settings.revokeStatus, headers: {}, text: '' }
}

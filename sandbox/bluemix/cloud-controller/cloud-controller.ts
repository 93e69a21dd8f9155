import { randomUUID } from 'node:crypto'
import type { Organization } from '../directory.ts'
import type { Claims } from '../jwt.ts'
import { type App, at, type Json, type Request, unknownName } from '../wire/request.ts'
import type { World } from '../world.ts'
import {
  badQuery,
  type CloudError,
  invalidToken,
  notAuthenticated,
  notAuthorized,
  notFound,
  refuse,
} from './cloud-error.ts'
import { v2Organization, v2Page, v3Organization, v3Page } from './organization-page.ts'
import { BadQuery, matchV2, matchV3, pageOf } from './organization-query.ts'

const v3Parameters = ['page', 'per_page', 'order_by', 'names', 'guids']

/**
 * `GET /v2/organizations`, `/v2/organizations/:guid`, `/v3/organizations`, `/v3/organizations/:guid`
 * (cloud_controller_ng 75496ec929; v3 as at HEAD). Each user sees the organizations it is in.
 *
 * | refusal                                      | status, code                     |
 * |----------------------------------------------|----------------------------------|
 * | no Authorization                             | 401 10002 NotAuthenticated       |
 * | not a good bearer token (scheme in any case) | 401 1000 InvalidAuthToken        |
 * | no scope cloud_controller.read               | 403 10003 NotAuthorized          |
 * | query not understood                         | 400 10005 BadQueryParameter      |
 * | v2: GUID not seen                            | 404 30003 OrganizationNotFound   |
 * | v3: GUID not seen                            | 404 10010 ResourceNotFound       |
 * | v2 switched off                              | 404 10000 NotFound               |
 */
export function addCloudController(app: App, world: World): void {
  for (const version of ['v2', 'v3']) {
    const options = at(world.hosts.api, 'organizations', (request, reply) => {
      reply.header('x-vcap-request-id', `${randomUUID()}::${randomUUID()}`)
      const v3 = version === 'v3'
      const found = respond(world, request, v3)
      return Array.isArray(found) ? refuse(reply, v3, found) : reply.send(found)
    })
    app.all(`/${version}/organizations`, options)
    app.all(`/${version}/organizations/:guid`, options)
  }
}

function respond(world: World, request: Request, v3: boolean): Json | CloudError {
  if (request.method !== 'GET' || (!v3 && world.settings.v2Disabled)) return notFound
  const bearer = authenticate(world, request)
  if (!('claims' in bearer)) return bearer
  const user = world.directory.userById(bearer.claims.user_id)
  const visible = user ? world.directory.organizationsOf(user) : []
  const { guid } = request.params
  if (guid !== undefined) return one(visible, guid, { v3, api: world.hosts.api })
  try {
    return v3 ? listV3(world, request, visible) : listV2(request, visible)
  } catch (error) {
    if (error instanceof BadQuery) return badQuery(error.message)
    throw error
  }
}

function authenticate(world: World, request: Request): { claims: Claims } | CloudError {
  const header = request.headers.authorization
  if (!header) return notAuthenticated
  const token = /^bearer (.+)$/i.exec(header)?.[1]
  const claims = token && world.sessions.verify(token, request.now, 'cloud_controller')
  if (!claims) return invalidToken
  const scopes: unknown = claims.scope
  const mayRead = Array.isArray(scopes) && scopes.includes('cloud_controller.read')
  return mayRead ? { claims } : notAuthorized
}

function one(
  visible: Organization[],
  guid: string,
  { v3, api }: { v3: boolean; api: string },
): Json | CloudError {
  const found = visible.find(organization => organization.guid === guid)
  if (found) return v3 ? v3Organization(found, api) : v2Organization(found)
  if (v3) return [404, 'ResourceNotFound', 10010, 'Organization not found']
  return [404, 'OrganizationNotFound', 30003, `The organization could not be found: ${guid}`]
}

function listV2({ query }: Request, visible: Organization[]) {
  const page = pageOf(query, { page: 'page', size: 'results-per-page', most: 100 })
  const path = '/v2/organizations'
  return v2Page(matchV2(visible, query.getAll('q')), page, { path, query })
}

function listV3({ hosts }: World, { query }: Request, visible: Organization[]) {
  const unexpected = unknownName(query.keys(), v3Parameters)
  if (unexpected) {
    const valid = v3Parameters.map(each => `'${each}'`).join(', ')
    throw new BadQuery(
      `Unknown query parameter(s): '${unexpected}'. Valid parameters are: ${valid}`,
    )
  }
  const page = pageOf(query, { page: 'page', size: 'per_page', most: 5000 })
  const path = '/v3/organizations'
  return v3Page(matchV3(visible, query), page, { path, query, api: hosts.api })
}

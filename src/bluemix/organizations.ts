import { LRUCache } from 'lru-cache'
import { failedIn } from '../issuer/issuer.ts'
import type { Discovery } from './endpoints.ts'
import {
  type Answer,
  failure,
  organizationFailure,
  record,
  text,
  unexpectedAnswer,
} from './http/answer.ts'
import { untilAborted } from './http/request.ts'
import type { Session } from './login/session.ts'

export interface Organizations {
  /** The GUID of a name; a GUID is its own. Rejects with `organization_not_found` and the like. */
  guid(organization: string, signal: AbortSignal): Promise<string>
  /** The same, asked of the environment again: the organization may have been made anew. */
  guidNow(organization: string, signal: AbortSignal): Promise<string>
}

interface Found {
  guid: string
  name: string
  suspended: boolean
}

interface Page {
  found: Found[]
  next: string | undefined
}

const guidShape = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
const rememberMs = 3_600_000
const rememberMissingMs = 10_000
const mostPages = 100

interface Dependencies {
  session: Session
  discovery: Discovery
  now: () => number
  /** Ends look-ups, which callers share; a caller's own signal only lets that caller go. */
  closing: AbortSignal
}

/**
 * Looks organizations up by name, as `bx iam org NAME --guid` does. Names are compared without
 * regard to case, as Cloud Foundry does itself, and exactly one must be found. One look-up at a
 * time for a name; what was found is remembered for an hour, that nothing was found for moments.
 */
export function createOrganizations(
  dependencies: Dependencies,
  { api }: { api: string },
): Organizations {
  const cache = new LRUCache<string, { hits: Found[] }, string>({
    max: 1000,
    ttl: rememberMs,
    ttlResolution: 0,
    perf: { now: dependencies.now },
    fetchMethod: async (_key, _stale, { options: entry, context: name }) => {
      const hits = await search(name, api, dependencies).catch(failedIn('organizations'))
      if (hits.length !== 1 || hits[0]?.suspended) entry.ttl = rememberMissingMs
      return { hits }
    },
  })
  const look = async (organization: string, signal: AbortSignal, forceRefresh: boolean) => {
    if (guidShape.test(organization)) return organization
    const entry = { context: organization, forceRefresh }
    const looking = cache.forceFetch(organization.toLowerCase(), entry)
    return only((await untilAborted(looking, signal)).hits, organization)
  }
  return {
    guid: async (organization, signal) => look(organization, signal, false),
    guidNow: async (organization, signal) => look(organization, signal, true),
  }
}

async function search(name: string, api: string, dependencies: Dependencies): Promise<Found[]> {
  const { session, discovery, now, closing } = dependencies
  const action = `look up organization "${name}"`
  const { version } = await discovery.endpoints(closing).catch(failedIn('login'))
  const hits: Found[] = []
  let url: string | undefined = api + query[version](name)
  for (let pages = 0; url !== undefined && pages < mostPages; pages++) {
    const ask = { operation: 'organizations', method: 'GET', url, sent: [] } as const
    const answer: Answer = await session.authorized(ask, closing)
    if (answer.status >= 300) throw failure('cloud_foundry', action, answer, now())
    const page = readPage(answer.json)
    if (page === undefined) throw unexpectedAnswer(action, answer)
    hits.push(...page.found.filter(each => each.name.toLowerCase() === name.toLowerCase()))
    url = page.next === undefined ? undefined : nextUrl(page.next, api)
    if (url === '') throw unexpectedAnswer(action, answer)
  }
  return hits
}

/*
 * v2: filters are split at `;`, so one in a name is doubled; the rest is the value whatever it
 * holds (vcap/rest_api/query.rb). v3: the list is split at `,` after a first decoding, and each
 * item is decoded once more (app/messages/base_message.rb), so a name is encoded twice.
 */
const query = {
  v2: (name: string) => {
    const filter = encodeURIComponent(`name:${name.replaceAll(';', ';;')}`)
    return `/v2/organizations?q=${filter}&results-per-page=100`
  },
  v3: (name: string) => {
    const twice = encodeURIComponent(encodeURIComponent(name))
    return `/v3/organizations?names=${twice}&per_page=100`
  },
}

/** `{next_url, resources:[{metadata, entity}]}` or `{pagination, resources:[{guid, name}]}`. */
function readPage(json: unknown): Page | undefined {
  const { resources, next_url, pagination } = record(json)
  if (!Array.isArray(resources)) return undefined
  const found = resources.map(record).map(row => ({
    guid: text(record(row.metadata).guid) ?? text(row.guid) ?? '',
    name: text(record(row.entity).name) ?? text(row.name) ?? '',
    suspended: record(row.entity).status === 'suspended' || row.suspended === true,
  }))
  return { found, next: text(next_url) ?? text(record(record(pagination).next).href) }
}

/** `next_url` is a path, `next.href` a URL. The access token goes to the API only: empty if not. */
function nextUrl(next: string, api: string): string {
  const url = URL.canParse(next, api) ? new URL(next, api) : undefined
  return url?.origin === new URL(api).origin ? url.href : ''
}

function only(hits: Found[], organization: string): string {
  const [hit, another] = hits
  if (hit === undefined) {
    const check = 'check its spelling, and that the user of the credentials is a member of it'
    const message = `there is no organization "${organization}" for this user: ${check}`
    throw organizationFailure('organization_not_found', message)
  }
  if (another !== undefined) {
    const message = `there is more than one organization "${organization}": give its GUID instead`
    throw organizationFailure('organization_ambiguous', message)
  }
  if (hit.suspended) {
    const message = `organization "${organization}" is suspended: nobody can manage its tokens`
    throw organizationFailure('organization_suspended', message)
  }
  // It becomes a header.
  if (/^[\w-]{1,100}$/.test(hit.guid)) return hit.guid
  const message = `organization "${organization}" has no usable GUID`
  throw organizationFailure('organization_unusable', message)
}

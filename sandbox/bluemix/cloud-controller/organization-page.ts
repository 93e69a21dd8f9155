import type { Organization } from '../directory.ts'
import type { Page } from './organization-query.ts'

const created = '2017-08-14T09:30:00Z'

/** One page of v2: `next_url` is a path, not a URL (paginated_collection_renderer.rb). */
export function v2Page(
  found: Organization[],
  { number, size }: Page,
  { path, query }: { path: string; query: URLSearchParams },
) {
  const pages = Math.max(1, Math.ceil(found.length / size))
  const url = (page: number) => {
    if (page < 1 || page > pages) return null
    const order = query.get('order-direction') ?? 'asc'
    const fixed = new URLSearchParams({ 'order-direction': order, page: String(page) })
    fixed.set('results-per-page', String(size))
    for (const filter of query.getAll('q')) fixed.append('q', filter)
    return `${path}?${fixed}`
  }
  return {
    total_results: found.length,
    total_pages: pages,
    prev_url: url(number - 1),
    next_url: url(number + 1),
    resources: slice(found, { number, size }).map(v2Organization),
  }
}

export function v2Organization({ guid, name, suspended }: Organization) {
  const url = `/v2/organizations/${guid}`
  return {
    metadata: { guid, url, created_at: created, updated_at: null },
    entity: {
      name,
      billing_enabled: false,
      quota_definition_guid: '769e777f-92b6-4ba0-9e48-5f77e6293670',
      status: suspended ? 'suspended' : 'active',
      quota_definition_url: '/v2/quota_definitions/769e777f-92b6-4ba0-9e48-5f77e6293670',
      spaces_url: `${url}/spaces`,
      domains_url: `${url}/domains`,
      private_domains_url: `${url}/private_domains`,
      users_url: `${url}/users`,
      managers_url: `${url}/managers`,
      billing_managers_url: `${url}/billing_managers`,
      auditors_url: `${url}/auditors`,
      app_events_url: `${url}/app_events`,
      space_quota_definitions_url: `${url}/space_quota_definitions`,
    },
  }
}

/** One page of v3: `next` is an object with an absolute URL. */
export function v3Page(
  found: Organization[],
  { number, size }: Page,
  { path, query, api }: { path: string; query: URLSearchParams; api: string },
) {
  const pages = Math.max(1, Math.ceil(found.length / size))
  const href = (page: number) => {
    const parameters = new URLSearchParams(query)
    parameters.set('page', String(page))
    parameters.set('per_page', String(size))
    return { href: `https://${api}${path}?${parameters}` }
  }
  return {
    pagination: {
      total_results: found.length,
      total_pages: pages,
      first: href(1),
      last: href(pages),
      next: number < pages ? href(number + 1) : null,
      previous: number > 1 ? href(number - 1) : null,
    },
    resources: slice(found, { number, size }).map(organization =>
      v3Organization(organization, api),
    ),
  }
}

export function v3Organization({ guid, name, suspended }: Organization, api: string) {
  const self = `https://${api}/v3/organizations/${guid}`
  return {
    guid,
    created_at: created,
    updated_at: created,
    name,
    suspended,
    relationships: { quota: { data: { guid: '769e777f-92b6-4ba0-9e48-5f77e6293670' } } },
    links: {
      self: { href: self },
      domains: { href: `${self}/domains` },
      default_domain: { href: `${self}/domains/default` },
    },
    metadata: { labels: {}, annotations: {} },
  }
}

function slice<T>(found: T[], { number, size }: Page): T[] {
  return found.slice((number - 1) * size, number * size)
}

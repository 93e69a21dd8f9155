import { type Organization, sameName } from '../directory.ts'

/** A query that the cloud controller refuses with 400 10005; `message` says why. */
export class BadQuery extends Error {}

export interface Page {
  number: number
  size: number
}

/**
 * The `q` parameters of v2, all of which must hold (cloud_controller_ng, lib/vcap/rest_api/query.rb):
 *
 *     q      = filter *( ";" filter )        a ";" inside a value is doubled
 *     filter = key operator value            the first operator found counts, so ":" in a value is fine
 *     key    = "name" / "status" / others    the others exist there but are not simulated here
 *     operator = ":" / ">=" / "<=" / "<" / ">" / " IN "
 */
export function matchV2(organizations: Organization[], queries: string[]): Organization[] {
  const tests = queries.flatMap(splitFilters).map(filter => testOf(filter))
  return organizations.filter(organization => tests.every(test => test(organization)))
}

/**
 * The `names` and `guids` of v3: split at ",", then each item is URL-decoded once more
 * (app/messages/base_message.rb, `to_array!` with CGI.unescape).
 */
export function matchV3(organizations: Organization[], query: URLSearchParams): Organization[] {
  const names = items(query.get('names'))
  const guids = items(query.get('guids'))
  return organizations.filter(
    ({ name, guid }) =>
      (!names || names.some(wanted => sameName(wanted, name))) && (!guids || guids.includes(guid)),
  )
}

/** Both numbers must be whole and positive, the size at most `most`. */
export function pageOf(
  query: URLSearchParams,
  names: { page: string; size: string; most: number },
): Page {
  const number = Number(query.get(names.page) ?? 1)
  const size = Number(query.get(names.size) ?? 50)
  if (!Number.isInteger(number) || number < 1) throw new BadQuery(`${names.page} must be positive`)
  if (!Number.isInteger(size) || size < 1 || size > names.most) {
    throw new BadQuery(`${names.size} must be between 1 and ${names.most}`)
  }
  return { number, size }
}

function splitFilters(query: string): string[] {
  const filters = ['']
  for (const [part] of query.matchAll(/;;|;|[^;]+/g)) {
    if (part === ';') filters.push('')
    else filters.push((filters.pop() ?? '') + (part === ';;' ? ';' : part))
  }
  return filters.filter(filter => filter !== '')
}

function testOf(filter: string): (organization: Organization) => boolean {
  const [, key = '', operator = '', value = ''] =
    /^(.*?)(:|>=|<=|<|>| IN )(.*)$/s.exec(filter) ?? []
  if (key !== 'name' && key !== 'status') throw new BadQuery(filter)
  if (operator !== ':' && operator !== ' IN ') throw new BadQuery(filter)
  const wanted = operator === ':' ? [value] : value.split(',')
  const statusOf = ({ suspended }: Organization) => (suspended ? 'suspended' : 'active')
  return organization => {
    const own = key === 'name' ? organization.name : statusOf(organization)
    return wanted.some(each => sameName(each, own))
  }
}

function items(list: string | null): string[] | undefined {
  return list?.split(',').map(cgiUnescape)
}

/** As Ruby's CGI.unescape: `+` is a space, a lone `%` stays. */
function cgiUnescape(text: string): string {
  return text
    .replaceAll('+', ' ')
    .replace(/(?:%[0-9a-f]{2})+/gi, bytes =>
      Buffer.from(bytes.replaceAll('%', ''), 'hex').toString(),
    )
}

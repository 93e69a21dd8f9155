import type { Directory, User } from './directory.ts'

/** Names that are hard to quote: in a v2 filter, in a v3 list, in a URL. */
export const oddNames = [
  'semi;colon',
  'two;;semicolons',
  'comma,name',
  'plus+name',
  'per%cent',
  'per%20cent',
  'colon:name',
  'a >= b',
  'one IN two',
  'amper&sand=x',
  'slash/name?#',
  'quo"te\'s',
  'MixedCase',
  'Zürich 東京',
]

/** More than a page of organizations: 60 teams beside those a test names. */
export function settle(directory: Directory): { user: User; stranger: User } {
  const user = directory.addUser({ name: 'operator@example.com' })
  const stranger = directory.addUser({ name: 'stranger@example.com' })
  const teams = Array.from({ length: 60 }, (_, index) => `team-${String(index).padStart(3, '0')}`)
  for (const name of [...teams, ...oddNames]) directory.addOrganization({ name, members: [user] })
  directory.addOrganization({ name: 'acme', members: [user], namespace: 'acme' })
  directory.addOrganization({ name: 'acme-shop', members: [user], namespace: 'acme_shop' })
  directory.addOrganization({ name: 'acme-data', members: [user], namespace: 'acme_data' })
  directory.addOrganization({ name: 'hidden', members: [stranger], namespace: 'hidden' })
  return { user, stranger }
}

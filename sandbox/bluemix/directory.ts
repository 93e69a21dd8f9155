import { randomBytes, randomUUID } from 'node:crypto'

/** A person or machine that can log in. Change its fields at any time. */
export interface User {
  readonly id: string
  /** Also the e-mail address. */
  readonly name: string
  /** A change makes the refresh tokens invalid. */
  password: string
  /** Each of these can be used to log in. */
  apiKeys: string[]
  /** One-time codes: each can be used once. */
  passcodes: string[]
  /** Cannot log in with a password (an API key or a code works). */
  federated: boolean
  passwordExpired: boolean
}

export interface UserInput {
  name: string
  password?: string
  apiKey?: string
  federated?: boolean
  passwordExpired?: boolean
}

export interface Organization {
  readonly guid: string
  readonly name: string
  /** Its one registry namespace: 4 to 30 of a-z, 0-9, _. */
  readonly namespace: string
  /** User ids; members see the organization and may mint for it. */
  readonly members: Set<string>
  /** Nobody may manage its tokens. */
  suspended: boolean
}

export interface OrganizationInput {
  name: string
  members: User[]
  /** Default: made from the name. */
  namespace?: string
  /** Allows a name that another organization has (ignoring case). */
  duplicate?: boolean
}

export interface Directory {
  addUser(input: UserInput): User
  addOrganization(input: OrganizationInput): Organization
  user(name: string): User | undefined
  userById(id: unknown): User | undefined
  userByApiKey(key: string): User | undefined
  /** Uses the code up. */
  userByPasscode(code: string): User | undefined
  organization(name: string): Organization
  organizationByGuid(guid: unknown): Organization | undefined
  /** The organizations that this user sees, in order of creation. */
  organizationsOf(user: User): Organization[]
  /** Every current password, key and code. */
  credentials(): string[]
}

/** Users and organizations. Their names are unique, ignoring case. */
export function createDirectory(): Directory {
  const users: User[] = []
  const organizations: Organization[] = []
  return {
    addUser: input => {
      const user = newUser(input)
      users.push(user)
      return user
    },
    addOrganization: input => {
      const taken = organizations.some(({ name }) => sameName(name, input.name))
      if (taken && !input.duplicate) throw new Error(`organization ${input.name} exists`)
      const organization = newOrganization(input, organizations.length)
      organizations.push(organization)
      return organization
    },
    user: name => users.find(user => sameName(user.name, name)),
    userById: id => users.find(user => user.id === id),
    userByApiKey: key => users.find(user => user.apiKeys.includes(key)),
    userByPasscode: code => {
      const user = users.find(({ passcodes }) => passcodes.includes(code))
      user?.passcodes.splice(user.passcodes.indexOf(code), 1)
      return user
    },
    organization: name => {
      const found = organizations.find(organization => organization.name === name)
      if (!found) throw new Error(`no organization ${name} in the environment`)
      return found
    },
    organizationByGuid: guid => organizations.find(organization => organization.guid === guid),
    organizationsOf: user => organizations.filter(({ members }) => members.has(user.id)),
    credentials: () =>
      users.flatMap(({ password, apiKeys, passcodes }) => [password, ...apiKeys, ...passcodes]),
  }
}

/** Cloud controller: names are case-insensitive (db/migrations/20130131184954_new_initial_schema.rb). */
export function sameName(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase()
}

function newUser(input: UserInput): User {
  return {
    id: randomUUID(),
    name: input.name,
    password: input.password ?? randomBytes(18).toString('base64url'),
    apiKeys: [input.apiKey ?? randomBytes(33).toString('base64url')],
    passcodes: [],
    federated: input.federated ?? false,
    passwordExpired: input.passwordExpired ?? false,
  }
}

function newOrganization(input: OrganizationInput, index: number): Organization {
  const plain = input.name.toLowerCase().replace(/[^a-z0-9]+/g, '_')
  const namespace = input.namespace ?? `${plain}_${index}`.slice(-30).padStart(4, '0')
  if (!/^[a-z0-9_]{4,30}$/.test(namespace)) throw new Error(`bad registry namespace ${namespace}`)
  const members = new Set(input.members.map(({ id }) => id))
  return { guid: randomUUID(), name: input.name, namespace, members, suspended: false }
}

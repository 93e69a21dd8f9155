import type { TSchema } from 'typebox'
import { Value } from 'typebox/value'
import type { Config } from './schema.ts'
import type { SettingSchema } from './settings.ts'

/** What is wrong with one setting: `{ name: 'admission.port', says: 'must be ..., got "http"' }`. */
export interface Problem {
  name: string
  says: string
}

/** All errors of `value` against the schema. `known`: all names, for suggestions. */
export function findProblems(schema: SettingSchema, value: unknown, known: string[]): Problem[] {
  return problemsAt({ schema, value, name: '' }, known)
}

/** `; did you mean X?`, or nothing where no known name is near (a third of its letters differ). */
export function suggestion(name: string, known: string[]): string {
  const ranked = known
    .map(candidate => ({ candidate, distance: editDistance(name, candidate) }))
    .sort((a, b) => a.distance - b.distance)
  const nearest = ranked[0]
  if (!nearest || nearest.distance > name.length / 3) return ''
  return `; did you mean ${nearest.candidate}?`
}

/** Whether a value of the file is a map, and no list. */
export function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

interface Place {
  schema: SettingSchema
  value: unknown
  name: string
}

function problemsAt(place: Place, known: string[]): Problem[] {
  const inside = [
    ...unknownNames(place, known),
    ...keyProblems(place),
    ...placesIn(place).flatMap(child => problemsAt(child, known)),
  ]
  if (inside.length > 0 || Value.Check(place.schema as TSchema, place.value)) return inside
  const { schema, value, name } = place
  if (value === undefined) return [{ name, says: 'is required' }]
  const got = schema.hidden ? 'something else' : shown(value)
  return [{ name, says: `must be ${schema.expected}, got ${got}` }]
}

function placesIn({ schema, value, name }: Place): Place[] {
  const { items } = schema
  if (items && Array.isArray(value)) {
    return value.map((item, index) => ({ schema: items, value: item, name: `${name}[${index}]` }))
  }
  if (!isMap(value)) return []
  const free = Object.values(schema.patternProperties ?? {})[0]
  const keys = free ? Object.keys(value) : requiredOrGiven(schema, value)
  return keys.map(key => ({
    schema: free ?? (schema.properties?.[key] as SettingSchema),
    value: value[key],
    name: join(name, key),
  }))
}

function requiredOrGiven(schema: SettingSchema, value: Record<string, unknown>): string[] {
  const required = schema.required ?? []
  return Object.keys(schema.properties ?? {}).filter(
    key => value[key] !== undefined || required.includes(key),
  )
}

/** A name that is no setting, down to the last part: `registri.host`, not `registri`. */
function unknownNames({ schema, value, name }: Place, known: string[]): Problem[] {
  if (!schema.properties || !isMap(value)) return []
  return Object.keys(value)
    .filter(key => !Object.hasOwn(schema.properties ?? {}, key))
    .flatMap(key => leafNames(join(name, key), value[key]))
    .map(unknown => ({ name: unknown, says: `is not a setting${suggestion(unknown, known)}` }))
}

function leafNames(name: string, value: unknown): string[] {
  if (!isMap(value) || Object.keys(value).length === 0) return [name]
  return Object.entries(value).flatMap(([key, child]) => leafNames(join(name, key), child))
}

function keyProblems({ schema, value, name }: Place): Problem[] {
  const { propertyNames } = schema
  if (!propertyNames || !isMap(value)) return []
  return Object.keys(value)
    .filter(key => !Value.Check(propertyNames as TSchema, key))
    .map(key => ({
      name,
      says: `has the key ${shown(key)}, which is not ${propertyNames.expected}`,
    }))
}

/** Text with an @ may hold a user and password (of a URL): it is never repeated. */
function shown(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (isMap(value)) return 'a map'
  if (typeof value !== 'string') return String(value)
  if (value.includes('@')) return 'text with an @ in it'
  return value.length > 80 ? `text of ${value.length} characters` : JSON.stringify(value)
}

function join(name: string, key: string): string {
  return name === '' ? key : `${name}.${key}`
}

/** Levenshtein's distance: letters to insert, remove or change. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (const [index, letter] of [...from].entries()) {
    const next = [index + 1]
    for (let column = 1; column <= to.length; column++) {
      const changed = (row[column - 1] ?? 0) + (letter === to[column - 1] ? 0 : 1)
      next.push(Math.min(changed, (row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[to.length] ?? 0
}

/** A rule about several settings, reported as a problem of `name`. */
interface Rule {
  name: string
  says: string
  /** The other settings in the rule. */
  others: string[]
  holds: (config: Config) => boolean
}

const DOCKER_HUB = /^(?:index\.|registry-1\.)?docker\.io(?::\d+)?$/

const RULES: Rule[] = [
  {
    name: 'domain',
    says: 'is required (or both bluemix.api and registry.host)',
    others: ['bluemix.api', 'registry.host'],
    // Both are derived from the domain, so they may be undefined until this rule holds.
    holds: ({ bluemix, registry }) => Boolean(bluemix.api && registry.host),
  },
  {
    name: 'registry.host',
    // The kubelet reads them as docker.io; the API server's condition on image names cannot.
    says: 'must not be a name of Docker Hub: images of Docker Hub are written in too many ways',
    others: [],
    holds: ({ registry }) => !DOCKER_HUB.test(registry.host ?? ''),
  },
  {
    name: 'bluemix.iam',
    says: 'is required where bluemix.login is iam',
    others: ['bluemix.login'],
    holds: ({ bluemix }) => bluemix.login !== 'iam' || bluemix.iam !== undefined,
  },
  {
    name: 'admission.port',
    says: 'must not be operations.port',
    others: ['operations.port'],
    holds: ({ admission, operations }) => admission.port !== operations.port,
  },
  {
    name: 'controller.rotateAfterSeconds',
    // Else more than two tokens of a namespace are valid at the same time.
    says: 'must be more than controller.rotateGraceSeconds',
    others: ['controller.rotateGraceSeconds'],
    holds: ({ controller }) =>
      controller.rotateAfterSeconds === undefined ||
      controller.rotateAfterSeconds > controller.rotateGraceSeconds,
  },
  {
    name: 'certificate.directory',
    says: 'is required where certificate.mode is files',
    others: ['certificate.mode'],
    holds: ({ certificate }) => certificate.mode !== 'files' || certificate.directory !== undefined,
  },
  {
    name: 'certificate.names',
    says: 'is required where certificate.mode is self-managed',
    others: ['certificate.mode'],
    holds: ({ certificate }) => certificate.mode !== 'self-managed' || certificate.names.length > 0,
  },
  {
    name: 'certificate.caSeconds',
    // The last third of a CA's life must hold the life of a leaf and the change to the next CA.
    says: 'must be at least four times certificate.leafSeconds',
    others: ['certificate.leafSeconds'],
    holds: ({ certificate }) => certificate.caSeconds >= 4 * certificate.leafSeconds,
  },
  {
    name: 'leader.leaseSeconds',
    says: 'must be at least three times leader.renewSeconds',
    others: ['leader.renewSeconds'],
    holds: ({ leader }) => leader.leaseSeconds >= 3 * leader.renewSeconds,
  },
]

/** The rules that do not hold, without those about a setting that is invalid itself (`problems`). */
export function brokenRules(config: Config, problems: Problem[]): Problem[] {
  return RULES.filter(rule => {
    const about = [rule.name, ...rule.others]
    return (
      !about.some(name => problems.some(problem => concerns(problem, name))) && !rule.holds(config)
    )
  })
}

/** A problem of a whole section concerns each setting in it, one of an item its list. */
function concerns(problem: Problem, name: string): boolean {
  return (
    problem.name === name ||
    name.startsWith(`${problem.name}.`) ||
    problem.name.startsWith(`${name}[`)
  )
}

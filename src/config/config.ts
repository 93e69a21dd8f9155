import { Value } from 'typebox/value'
import { LineCounter, parse, parseDocument } from 'yaml'
import { type Config, configSchema } from './schema.ts'
import { derivedSettings, rootSchema, type Setting, settings } from './settings.ts'
import { brokenRules, findProblems, isMap, type Problem, suggestion } from './validate.ts'

export type { Config } from './schema.ts'
export { settingsTable } from './settings.ts'

/** An invalid configuration. The message lists every problem and holds no secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: string[]

  constructor(problems: string[]) {
    super(`configuration is not usable:\n${problems.map(problem => `  - ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/**
 * The settings from the text of the YAML file and the PULLPASS_... variables, which override the file.
 * Missing settings get their default. Throws a ConfigError that lists every problem.
 */
export function readConfig(yamlText: string, environment: Environment): Config {
  const written = readYaml(yamlText)
  const problems = applyEnvironment(written, environment)
  const derived = derive(written)
  const config = Value.Default(configSchema, written)
  const names = [...Object.keys(rootSchema.properties ?? {}), ...settings.map(({ name }) => name)]
  problems.push(...findProblems(rootSchema, config, names).filter(({ name }) => !derived.has(name)))
  problems.push(...brokenRules(config as Config, problems))
  if (problems.length === 0) return config as Config
  throw new ConfigError(problems.map(({ name, says }) => `${labelled(name, environment)} ${says}`))
}

/** The parser's messages may quote a secret of the file: the error names only line and kind. */
function readYaml(text: string): Record<string, unknown> {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  if (document.errors.length > 0) {
    throw new ConfigError(
      document.errors.map(error => {
        const kind = error.code.toLowerCase().replaceAll('_', ' ')
        return `line ${lines.linePos(error.pos[0]).line} of the file is not valid YAML (${kind})`
      }),
    )
  }
  const root = withoutNulls(toPlain(document) ?? {})
  if (!isMap(root)) throw new ConfigError(['the file must be a map of settings'])
  return root
}

function toPlain(document: ReturnType<typeof parseDocument>): unknown {
  try {
    return document.toJS({ maxAliasCount: 0 })
  } catch {
    throw new ConfigError(['the file must not use YAML aliases (*name)'])
  }
}

/** A setting without a value (`email:`) counts as missing. */
function withoutNulls(value: unknown): unknown {
  if (!isMap(value)) return value
  const kept = Object.entries(value).filter(([, child]) => child !== null)
  return Object.fromEntries(kept.map(([key, child]) => [key, withoutNulls(child)]))
}

/**
 * Adds the settings that are derived from others. Returns the names of those that were missing: an
 * error in one of them is an error in its source, and reported there.
 */
function derive(written: Record<string, unknown>): Set<string> {
  const derived = new Set<string>()
  for (const [name, template] of derivedSettings) {
    const [section = '', key = ''] = name.split('.')
    written[section] ??= {}
    const place = written[section]
    if (!isMap(place) || place[key] !== undefined) continue
    derived.add(name)
    const source = /<(.+)>/.exec(template)?.[1] ?? ''
    const value = settingAt(written, source)
    if (typeof value === 'string') place[key] = template.replace(`<${source}>`, value)
  }
  return derived
}

function settingAt(written: Record<string, unknown>, name: string): unknown {
  return name
    .split('.')
    .reduce<unknown>((place, key) => (isMap(place) ? place[key] : undefined), written)
}

/** `admission.port (PULLPASS_ADMISSION_PORT)` where the value came from the environment. */
function labelled(name: string, environment: Environment): string {
  const setting = settings.find(one => one.name === name)
  return setting && environment[setting.variable] ? `${name} (${setting.variable})` : name
}

type Environment = Record<string, string | undefined>

/**
 * Overrides the values of the file with those of PULLPASS_... variables, in place. Lists and maps are
 * YAML (or JSON) in a variable. An empty variable counts as not set. Returns the names of variables
 * that are not settings.
 */
function applyEnvironment(written: Record<string, unknown>, environment: Environment): Problem[] {
  const known = settings.map(({ variable }) => variable)
  const problems: Problem[] = []
  for (const [variable, text] of Object.entries(environment).filter(isOurs)) {
    const setting = settings.find(one => one.variable === variable)
    if (setting) put(written, setting, text)
    else problems.push({ name: variable, says: `is not a setting${suggestion(variable, known)}` })
  }
  return problems
}

/*
 * In a namespace with a Service named pullpass or pullpass-..., the kubelet sets variables of our
 * prefix (kubernetes/kubernetes pkg/kubelet/envvars):
 *
 *   X_SERVICE_HOST  X_SERVICE_PORT  X_SERVICE_PORT_<NAME>
 *   X_PORT=tcp://10.0.0.7:443  X_PORT_443_TCP=...  X_PORT_443_TCP_PROTO  X_PORT_443_TCP_PORT  X_PORT_443_TCP_ADDR
 */
const SERVICE_LINK =
  /_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/
const SERVICE_LINK_URL = /^(tcp|udp|sctp):\/\//

function isOurs(variable: [string, string | undefined]): variable is [string, string] {
  const [name, value] = variable
  if (!name.startsWith('PULLPASS_') || value === undefined || value === '') return false
  return !SERVICE_LINK.test(name) && !(name.endsWith('_PORT') && SERVICE_LINK_URL.test(value))
}

function put(written: Record<string, unknown>, setting: Setting, text: string): void {
  let place = written
  for (const key of setting.path.slice(0, -1)) {
    place[key] ??= {}
    const next = place[key]
    if (!isMap(next)) return
    place = next
  }
  place[setting.path.at(-1) as string] = typed(setting.schema.type, text)
}

/** A value of another type stays text: the schema then reports it. */
function typed(type: string | undefined, text: string): unknown {
  if (type === 'integer') return /^-?\d+$/.test(text) ? Number(text) : text
  if (type === 'array' || type === 'object') return parsed(text)
  return text
}

function parsed(text: string): unknown {
  try {
    return parse(text, { logLevel: 'error', maxAliasCount: 0 })
  } catch {
    return text
  }
}

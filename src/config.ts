import { Value } from 'typebox/value'
import { LineCounter, parseDocument } from 'yaml'
import { applyEnvironment, type Environment } from './config/environment.ts'
import { findProblems, isMap } from './config/problems.ts'
import { brokenRules } from './config/rules.ts'
import { type Config, configSchema } from './config/schema.ts'
import { derivedSettings, rootSchema, settings } from './config/settings.ts'

export type { Config } from './config/schema.ts'
export { settingsTable } from './config/settings.ts'

/** The configuration cannot be used. The message lists every problem, and repeats no secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: string[]

  constructor(problems: string[]) {
    super(`configuration is not usable:\n${problems.map(problem => `  - ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/**
 * Makes the settings from the text of the YAML file and the PULLPASS_... variables, which go before
 * the file. Settings left out get their default. Throws a ConfigError that lists every problem.
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

/** The parser's messages quote the file, and so perhaps a secret: only place and kind are told. */
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

/** A setting written without a value (`email:`) is one that is left out. */
function withoutNulls(value: unknown): unknown {
  if (!isMap(value)) return value
  const kept = Object.entries(value).filter(([, child]) => child !== null)
  return Object.fromEntries(kept.map(([key, child]) => [key, withoutNulls(child)]))
}

/**
 * Fills in the settings that are made from others. Returns the names of those that were left out:
 * what is wrong with them is wrong with what they are made from, and told there.
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

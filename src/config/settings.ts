import { configSchema } from './schema.ts'

/** The parts of a schema node that are needed to read settings. */
export interface SettingSchema {
  type?: string
  description?: string
  /** The words for a valid value in an error message. */
  expected?: string
  default?: unknown
  properties?: Record<string, SettingSchema>
  required?: string[]
  /** For a map with free keys: the schema of its values. */
  patternProperties?: Record<string, SettingSchema>
  /** For a map with free keys: the schema of its keys. */
  propertyNames?: SettingSchema
  /** Messages never contain the value. */
  hidden?: boolean
  items?: SettingSchema
}

/** One setting: where it is in the file and in the environment. */
export interface Setting {
  path: string[]
  /** `admission.waitMs` */
  name: string
  /** `PULLPASS_ADMISSION_WAIT_MS` */
  variable: string
  required: boolean
  schema: SettingSchema
}

/** The schema of typebox seen as plain JSON Schema. */
export const rootSchema = configSchema as unknown as SettingSchema

/** All settings, in the order of the schema. */
export const settings: Setting[] = listSettings(rootSchema, [])

/** Settings that are derived from others where they are missing, in this order. */
export const derivedSettings: [name: string, template: string][] = [
  ['registry.host', 'registry.<domain>'],
  ['registry.url', 'https://<registry.host>'],
  ['bluemix.api', 'https://api.<domain>'],
]

/** The settings as a table in Markdown: name, default, meaning. */
export function settingsTable(): string {
  const rows = settings.map(
    setting => `| \`${setting.name}\` | ${defaultCell(setting)} | ${setting.schema.description} |`,
  )
  return ['| Setting | Default | Meaning |', '|---|---|---|', ...rows, ''].join('\n')
}

function listSettings(schema: SettingSchema, path: string[]): Setting[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, child]) => {
    const here = [...path, key]
    if (child.properties) return listSettings(child, here)
    const required = (schema.required ?? []).includes(key)
    return [
      { path: here, name: here.join('.'), variable: variableOf(here), required, schema: child },
    ]
  })
}

/** `['admission', 'waitMs']` -> `PULLPASS_ADMISSION_WAIT_MS` */
function variableOf(path: string[]): string {
  const words = path.map(key => key.replace(/[A-Z]/g, letter => `_${letter}`).toUpperCase())
  return ['PULLPASS', ...words].join('_')
}

function defaultCell({ name, required, schema }: Setting): string {
  const made = derivedSettings.find(([derived]) => derived === name)
  if (made) return `\`${made[1]}\``
  if (schema.default === undefined) return required ? '(required)' : ''
  return `\`${typeof schema.default === 'string' ? schema.default : JSON.stringify(schema.default)}\``
}

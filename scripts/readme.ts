import { readFileSync, writeFileSync } from 'node:fs'
import { settingsTable } from '../src/config/config.ts'

const begin = '<!-- settings: made by `npm run readme` -->\n'
const end = '<!-- /settings -->'
const file = 'docs/settings.md'

/** Replaces the table of settings in the page by the table of the schema. */
export function withSettings(page: string): string {
  const [before, rest = ''] = page.split(begin)
  const [, after = ''] = rest.split(end)
  return `${before}${begin}${settingsTable()}${end}${after}`
}

/** The page without this table, that is, the part that people write. */
export function withoutSettings(page: string): string {
  return page.replace(settingsTable(), '')
}

if (import.meta.main) writeFileSync(file, withSettings(readFileSync(file, 'utf8')))

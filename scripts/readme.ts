import { readFileSync, writeFileSync } from 'node:fs'
import { settingsTable } from '../src/config/config.ts'

const begin = '<!-- settings: made by `npm run readme` -->\n'
const end = '<!-- /settings -->'
const file = 'docs/settings.md'

/** A page with its table of settings replaced by the one of the schema. */
export function withSettings(page: string): string {
  const [before, rest = ''] = page.split(begin)
  const [, after = ''] = rest.split(end)
  return `${before}${begin}${settingsTable()}${end}${after}`
}

/** The page without that table: the part that people write. */
export function withoutSettings(page: string): string {
  return page.replace(settingsTable(), '')
}

if (import.meta.main) writeFileSync(file, withSettings(readFileSync(file, 'utf8')))

import { readFileSync, writeFileSync } from 'node:fs'
import { settingsTable } from '../src/config/config.ts'

/** The README with the table of settings as the schema has it. */
export function withSettings(readme: string): string {
  const [before, rest = ''] = readme.split('<!-- settings -->\n')
  const [, after] = rest.split('<!-- /settings -->')
  return `${before}<!-- settings -->\n${settingsTable()}<!-- /settings -->${after}`
}

if (import.meta.main) {
  writeFileSync('README.md', withSettings(readFileSync('README.md', 'utf8')))
}

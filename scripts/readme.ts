import { readFileSync, writeFileSync } from 'node:fs'
import { settingsTable } from '../src/config/config.ts'
import { failureTable } from '../src/controller/failures.ts'

/** A part of a page that is made from the source. */
interface MadePart {
  file: string
  begin: string
  end: string
  text: () => string
}

const settingsPart: MadePart = {
  file: 'docs/settings.md',
  begin: '<!-- settings: made by `npm run readme` -->\n',
  end: '<!-- /settings -->',
  text: settingsTable,
}
const failuresPart: MadePart = {
  file: 'CONTRIBUTING.md',
  begin: '<!-- failures: made by `npm run readme` -->\n',
  end: '<!-- /failures -->',
  text: failureTable,
}
export const madeParts = [settingsPart, failuresPart]

/** The page with this part as the source has it. */
export function withPart(page: string, { begin, end, text }: MadePart): string {
  const [before, rest = ''] = page.split(begin)
  const [, after = ''] = rest.split(end)
  return `${before}${begin}${text()}${end}${after}`
}

/** The page without the table of settings, that is, the part that people write. */
export function withoutSettings(page: string): string {
  return page.replace(settingsTable(), '')
}

if (import.meta.main) {
  for (const part of madeParts) {
    writeFileSync(part.file, withPart(readFileSync(part.file, 'utf8'), part))
  }
}

import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { tool } from '../sandbox/tools.ts'

const CHART = resolve(import.meta.dirname, 'pullpass')
const BIOME = resolve(import.meta.dirname, '../node_modules/.bin/biome')

/** The README of the chart: helm-docs makes it from values.yaml and README.md.gotmpl, and biome formats it. */
export async function chartReadme(): Promise<string> {
  const inOrder = ['--chart-search-root', '.', '--sort-values-order', 'file', '--dry-run']
  const made = execFileSync(await tool('helm-docs'), inOrder, {
    cwd: CHART,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  return execFileSync(BIOME, ['format', '--stdin-file-path=README.md'], {
    cwd: CHART,
    input: made,
    encoding: 'utf8',
  })
}

if (import.meta.main) await writeFile(resolve(CHART, 'README.md'), await chartReadme())

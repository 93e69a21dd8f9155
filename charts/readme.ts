import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { build } from '../sandbox/tools/build.ts'

const CHART = resolve(import.meta.dirname, 'pullpass')
const BIOME = resolve(import.meta.dirname, '../node_modules/.bin/biome')

/** The chart's README.md, made by helm-docs from values.yaml and README.md.gotmpl, in the form of the project. */
export async function chartReadme(): Promise<string> {
  const source = {
    folder: 'helm-docs',
    module: 'github.com/norwoodj/helm-docs',
    path: 'cmd/helm-docs',
    takes: '20 s',
  }
  const helmDocs = await build('helm-docs', source, process.env)
  const inOrder = ['--chart-search-root', '.', '--sort-values-order', 'file', '--dry-run']
  const made = execFileSync(helmDocs, inOrder, { cwd: CHART, stdio: ['ignore', 'pipe', 'ignore'] })
  return execFileSync(BIOME, ['format', '--stdin-file-path=README.md'], {
    cwd: CHART,
    input: made,
    encoding: 'utf8',
  })
}

if (import.meta.main) await writeFile(resolve(CHART, 'README.md'), await chartReadme())

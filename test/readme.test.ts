import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { madeParts, withoutSettings, withPart } from '../scripts/readme.ts'
import { settings } from '../src/config/settings.ts'

const documents = [
  'README.md',
  'CONTRIBUTING.md',
  ...globSync('docs/**/*.md'),
  'charts/pullpass/README.md',
]
/** Those that are written by hand. */
const written = documents.filter(file => !file.startsWith('charts/'))
const read = (file: string) => readFileSync(file, 'utf8')
const readme = read('README.md')
const scripts = JSON.parse(read('package.json')).scripts as Record<string, string>

t.test('the tables in the documents match the source (npm run readme)', async t => {
  for (const part of madeParts) {
    const page = read(part.file)
    t.ok(page.includes(part.begin), part.file)
    t.equal(page, withPart(page, part), part.file)
  }
})

t.test('every link in the documents leads to an existing file', async t => {
  for (const file of documents) {
    const links = [...read(file).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)]
    for (const [, link = ''] of links)
      t.ok(existsSync(join(dirname(file), link)), `${file}: ${link}`)
  }
})

t.test('every link within a page leads to an existing title', async t => {
  for (const file of written) {
    const text = read(file)
    const titles = [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) => anchorOf(title))
    for (const [, anchor = ''] of text.matchAll(/\]\(#([^)]+)\)/g))
      t.ok(titles.includes(anchor), `${file}: #${anchor}`)
  }
})

t.test('every npm script that the documents name exists', async t => {
  for (const file of written) {
    const named = [...read(file).matchAll(/npm run ([a-z:-]+)/g)]
    for (const [, name = ''] of named) t.ok(scripts[name], `${file}: npm run ${name}`)
  }
})

t.test('every source file and test folder that the documents name exists', async t => {
  for (const file of written) {
    const named = [...read(file).matchAll(/`(?:npx tap )?([\w./-]+\.ts|test\/[\w./-]+)`(?!\])/g)]
    for (const [, path = ''] of named)
      t.ok(existsSync(path) || existsSync(join('src', path)), `${file}: ${path}`)
  }
})

t.test('every setting that the documents name exists in the program or in the chart', async t => {
  const known = new Set([...settings.map(({ name }) => name), ...valuesOfChart()])
  const sections = new Set([...known].map(name => name.split('.')[0]))
  for (const file of written) {
    const named = [...withoutSettings(read(file)).matchAll(/`([a-zA-Z]+)\.([a-zA-Z]+)`/g)]
    for (const [, section = '', key = ''] of named) {
      if (!sections.has(section) || key === 'ts' || key === 'md') continue
      t.ok(known.has(`${section}.${key}`), `${file}: ${section}.${key}`)
    }
  }
})

t.test('every alert of the chart has a paragraph in docs/operations.md', async t => {
  const alerts = parse(read('charts/pullpass/monitoring/alerts.yaml')) as { alert: string }[]
  const explained = [...read('docs/operations.md').matchAll(/^\*\*(Pullpass\w+)\.\*\*/gm)]
  t.strictSame(
    explained.map(([, name]) => name).toSorted(),
    alerts.map(({ alert }) => alert).toSorted(),
  )
})

t.test('every decision record ends with its alternatives', async t => {
  for (const file of globSync('docs/decisions/*.md')) {
    const paragraphs = read(file).trim().split('\n\n')
    t.match(paragraphs.at(-1), /^\*\*Alternatives\.\*\*/, file)
  }
})

t.test('the documents use plain words of the field', async t => {
  const bookish = /\b(whoever|mend|deeds?|lest|strays?|untidy|tidy|told|tells|keeper)\b/i
  for (const file of written) t.notMatch(withoutSettings(read(file)), bookish, file)
})

t.test('the README starts with the purpose and a pod before and after', async t => {
  const screen = readme.split('\n').slice(0, 24).join('\n')
  t.match(screen, /registry/)
  t.match(screen, /imagePullSecrets/)
  t.match(screen, /kubectl apply/)
})

/** As GitHub makes the anchor of a title. */
function anchorOf(title: string): string {
  return title
    .toLowerCase()
    .replace(/[^\w -]/g, '')
    .replaceAll(' ', '-')
}

/** `webhook.failurePolicy` and so on. */
function valuesOfChart(): string[] {
  const values = parse(read('charts/pullpass/values.yaml')) as Record<string, unknown>
  return Object.entries(values).flatMap(([section, value]) =>
    typeof value === 'object' && value !== null
      ? Object.keys(value).map(key => `${section}.${key}`)
      : [section],
  )
}

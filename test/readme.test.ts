import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { withSettings } from '../scripts/readme.ts'

const readme = readFileSync('README.md', 'utf8')
const scripts = JSON.parse(readFileSync('package.json', 'utf8')).scripts as Record<string, string>

t.test('the table of settings is that of the schema (npm run readme)', async t => {
  t.equal(readme, withSettings(readme))
})

t.test('links lead somewhere', async t => {
  for (const file of ['README.md', 'CONTRIBUTING.md', 'charts/pullpass/README.md']) {
    const links = [...readFileSync(file, 'utf8').matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)]
    for (const [, link = ''] of links)
      t.ok(existsSync(join(dirname(file), link)), `${file}: ${link}`)
  }
})

t.test('every npm script that the documents name exists', async t => {
  for (const file of ['README.md', 'CONTRIBUTING.md']) {
    const named = [...readFileSync(file, 'utf8').matchAll(/npm run ([a-z:-]+)/g)]
    for (const [, name = ''] of named) t.ok(scripts[name], `${file}: npm run ${name}`)
  }
})

t.test('the first screen says what it does, with a pod before and after', async t => {
  const screen = readme.split('\n').slice(0, 24).join('\n')
  t.match(screen, /registry/)
  t.match(screen, /imagePullSecrets/)
  t.match(screen, /kubectl apply/)
})

import { writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import t from 'tap'
import { makeFolder } from '../sandbox/processes.ts'
import { checkFactories } from './factories.ts'

const declarations = `
interface Wide { one: number; two: number; three: number; four: number }
interface Dependencies { one: number; two?: number }
export function createPart(dependencies: Dependencies, settings: { three: number }) {
  return [dependencies, settings]
}
declare const wide: Wide
`
const derived = /^a type of options is derived/

t.test('each breach of the rules about factories is found', async t => {
  const rows: [text: string, problems: (string | RegExp)[]][] = [
    ['createPart({ one: 1 }, { three: wide.three })', []],
    ['createPart({ ...wide }, { three: 3 })', ['createPart does not declare three, four']],
    ['createPart(wide, { three: 3 })', ['createPart does not declare three, four']],
    ['createPart({ one: 1 }, wide)', ['createPart does not declare one, two, four']],
    [
      'export class Part { constructor(_: Dependencies) {} }; new Part(wide)',
      ['Part does not declare three, four'],
    ],
    ["export interface PartOptions extends Omit<Wide, 'one'> {}", [derived]],
    ["type PartSettings = Pick<Wide, 'one'>", [derived]],
    ["export function part(options: Pick<Wide, 'one'>) { return options }", [derived]],
    ["export function part({ one }: { one: Omit<Wide, 'one'> }) { return one }", [derived]],
    ['export function createWide({ one }: Wide) { return one }', ['createWide has 4 dependencies']],
  ]
  const folder = await makeFolder('factories')
  t.teardown(() => folder.remove())
  const paths = rows.map((_, index) => join(folder.path, `${index}.ts`))
  await Promise.all(rows.map(([text], index) => writeFile(paths[index] ?? '', declarations + text)))
  const found = checkFactories(paths, 2)
  for (const [index, [text, problems]] of rows.entries()) {
    const of = found.filter(({ path }) => basename(path) === `${index}.ts`)
    const texts = of.map(({ problem }) => problem.replace(/^line \d+: /, ''))
    t.match(texts, problems, text)
    t.equal(texts.length, problems.length, text)
  }
})

import { parseArgs } from 'node:util'
import { measure } from './scale/measure.ts'
import { brokenBounds, type Measured, table } from './scale/table.ts'

const USAGE = `npm run bench:scale                               500 and 2000 namespaces
npm run bench:scale -- 10000                      another number, or several
npm run bench:scale -- 500 --foreign 50000        with so many tokens of others in the list`

/** Measures each number of namespaces, prints the table, and fails where a bound is broken. */
async function main(args: string[]): Promise<void> {
  const { numbers, foreign } = readArguments(args)
  const measured: Measured[] = []
  for (const namespaces of numbers) {
    const progress = (what: string) => console.log(`${namespaces} namespaces: ${what}`)
    measured.push(await measure({ namespaces, foreign }, progress))
    console.log(`\n${table(measured)}\n`)
  }
  const broken = brokenBounds(measured)
  if (broken.length > 0) throw new Error(`broken bounds:\n  ${broken.join('\n  ')}`)
}

function readArguments(args: string[]): { numbers: number[]; foreign: number } {
  const options = { foreign: { type: 'string', default: '0' } } as const
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
  const numbers = (positionals.length > 0 ? positionals : ['500', '2000']).map(Number)
  const foreign = Number(values.foreign)
  if ([...numbers, foreign].every(each => Number.isInteger(each) && each >= 0)) {
    return { numbers, foreign }
  }
  throw new Error(`numbers expected\n\n${USAGE}`)
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  error => {
    console.error((error as Error).message)
    process.exit(1)
  },
)

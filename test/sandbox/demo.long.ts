import { join } from 'node:path'
import t from 'tap'
import { run } from '../../sandbox/processes.ts'

const demo = join(import.meta.dirname, '..', '..', 'sandbox', 'demo.ts')

t.test('the demo succeeds, fits into 100 columns and says what to do next', async t => {
  const { code, stdout, stderr } = await run({ command: process.execPath, args: [demo] })
  t.equal(code, 0, stderr)
  t.strictSame(
    stdout.split('\n').filter(line => line.length >= 100),
    [],
  )
  t.ok(stderr.split('\n').length < 60, 'few lines before the story')
  t.match(stdout.slice(stdout.lastIndexOf('\n\n')), /^\n\nNext:\n {2}npm run demo -- --keep/)
})

t.test('a wrong option of the demo prints its usage', async t => {
  const { code, stderr } = await run({ command: process.execPath, args: [demo, '--helm=5'] })
  t.equal(code, 1)
  t.match(stderr, /--helm must be 3 or 4, got "5"\n\nnpm run demo/)
})

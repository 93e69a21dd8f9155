import { join } from 'node:path'
import t from 'tap'
import { run } from '../../sandbox/processes.ts'

/** With room for all new objects, the use of the heap shows what was allocated. */
const flags = ['--expose-gc', '--min-semi-space-size=512', '--max-semi-space-size=512']
const program = join(import.meta.dirname, 'count-reviews.ts')
const { stdout, stderr } = await run({
  command: process.execPath,
  args: [...flags, program],
  env: {},
})
const { ready, waiting } = JSON.parse(stdout || '{}')
t.comment(stdout, stderr)

t.test('a review of a namespace with its Secret asks the API server nothing', async t => {
  t.equal(ready.apiReads, 0)
  t.equal(ready.wanted, 0, 'nor the controller')
})

t.test('a review allocates little and leaves nothing behind', async t => {
  t.ok(ready.allocated < 8 * ready.bodyBytes, `${ready.allocated} bytes`)
  t.ok(ready.kept < 10, `${ready.kept} bytes`)
  t.equal(ready.timersLeft, 0)
})

t.test('a review that waits has a bounded number of timers, and leaves none', async t => {
  t.ok(waiting.timersWhileWaiting <= 3, `${waiting.timersWhileWaiting} timers`)
  t.equal(waiting.timersLeft, 0)
})

import { mock } from 'node:test'
import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { watchProblems } from '../../src/kubernetes/events.ts'

t.test('a lasting problem is reported in one event, a short one in none', async t => {
  const reported: string[] = []
  const seen = [['passing'], ['lasting'], ['lasting', 'late'], ['lasting', 'late']]
  let looks = 0
  const problems = () => seen[looks++] ?? ['lasting']
  const end = watchProblems({ problems, tell: async note => void reported.push(note), everyMs: 1 })
  t.teardown(end)
  await waitFor(() => looks > 50, { withinMs: 5000, what: 'fifty looks' })
  t.strictSame(reported, ['lasting', 'late'])
})

t.test('a lasting problem is reported again, because events expire', async t => {
  let reported = 0
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  t.teardown(watchProblems({ problems: () => ['lasting'], tell: async () => void reported++ }))
  mock.timers.tick(60_000)
  t.equal(reported, 1)
  mock.timers.tick(3_600_000)
  t.equal(reported, 7)
})

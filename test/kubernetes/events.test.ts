import { mock } from 'node:test'
import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { watchProblems } from '../../src/kubernetes/events.ts'

const problemOf = (message: string) => ({ code: 'any', message })

t.test('a problem that lasts is reported once, one that passes is not', async t => {
  const reported: string[] = []
  const seen = [['passing'], ['lasting'], ['lasting', 'late'], ['lasting', 'late']]
  let looks = 0
  const problems = () => (seen[looks++] ?? ['lasting']).map(problemOf)
  const report = async ({ message }: { message: string }) => void reported.push(message)
  const end = watchProblems({ problems, report }, { everyMs: 1 })
  t.teardown(end)
  await waitFor(() => looks > 50, { withinMs: 5000, what: 'fifty looks' })
  t.strictSame(reported, ['lasting', 'late'])
})

t.test('a problem whose text gives the time of the next try is one problem', async t => {
  const reported: string[] = []
  let minute = 10
  const problems = () => [problemOf(`locked; next login at 2026-11-27T12:${minute++}:00Z`)]
  const report = async ({ message }: { message: string }) => void reported.push(message)
  t.teardown(watchProblems({ problems, report }, { everyMs: 1 }))
  await waitFor(() => minute > 50, { withinMs: 5000, what: 'forty looks' })
  t.strictSame(reported, ['locked; next login at 2026-11-27T12:11:00Z'])
})

t.test('a problem is reported again while it lasts, since events end', async t => {
  let reports = 0
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  const problems = () => [problemOf('lasting')]
  t.teardown(watchProblems({ problems, report: async () => void reports++ }))
  mock.timers.tick(60_000)
  t.equal(reports, 1)
  mock.timers.tick(3_600_000)
  t.equal(reports, 7)
})

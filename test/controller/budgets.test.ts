import t from 'tap'
import { type Budget, createBudgets, TooManyChanges } from '../../src/controller/budgets.ts'

function setup() {
  let time = Date.parse('2026-03-01T12:00:00Z')
  const budgets = createBudgets(() => new Date(time))
  const use = (budget: Budget, namespace = 'shop'): number => {
    try {
      budgets.check(namespace, budget)
      budgets.take(namespace, budget)
      return 0
    } catch (error) {
      if (!(error instanceof TooManyChanges)) throw error
      return error.retryAfterMs / 1000
    }
  }
  const pass = (seconds: number) => {
    time += seconds * 1000
  }
  return { budgets, use, pass }
}

t.test('a namespace can mint three tokens in ten minutes', async t => {
  const { use, pass } = setup()
  t.same([use('mint'), use('mint'), use('mint')], [0, 0, 0])
  t.equal(use('mint'), 600)
  pass(400)
  t.equal(use('mint'), 200)
  pass(200)
  t.equal(use('mint'), 0)
})

t.test('a namespace can check three times at once, and then at growing intervals', async t => {
  const { use, pass } = setup()
  t.same([use('check'), use('check'), use('check')], [0, 0, 0])
  const waits = [1, 2, 3, 4, 5, 6, 7].map(() => {
    const seconds = use('check')
    pass(seconds)
    t.equal(use('check'), 0)
    return seconds
  })
  t.same(waits, [10, 20, 40, 80, 160, 300, 300])
})

t.test('a namespace that was quiet for some time has its full budget again', async t => {
  const { use, pass } = setup()
  t.same(
    [1, 2, 3, 4].map(() => use('check')),
    [0, 0, 0, 10],
  )
  pass(21)
  t.same(
    [1, 2, 3, 4].map(() => use('check')),
    [0, 0, 0, 10],
  )
})

t.test('a namespace that asks constantly gets at most one check in ten seconds', async t => {
  const { use, pass } = setup()
  let count = 0
  for (let seconds = 0; seconds < 600; seconds++) {
    if (use('check') === 0) count++
    pass(1)
  }
  t.ok(count <= 9, `${count} checks in ten minutes`)
})

t.test('namespaces do not share a budget, and one budget does not affect another', async t => {
  const { use } = setup()
  for (let times = 0; times < 9; times++) use('check')
  t.equal(use('check', 'market'), 0)
  t.equal(use('failed_write'), 0)
})

t.test('a new namespace with the same name has full budgets, except for mints', async t => {
  const { budgets, use } = setup()
  for (let times = 0; times < 3; times++)
    for (const budget of ['mint', 'check'] as const) use(budget)
  budgets.reset('shop')
  t.same([use('check'), use('mint')], [0, 600])
})

t.test('the failure contains the time of the next attempt', async t => {
  const { budgets, use } = setup()
  for (let times = 0; times < 3; times++) use('check')
  t.throws(() => budgets.check('shop', 'check'), {
    message: 'the pull secret is changed too often; next try at 2026-03-01T12:00:10Z',
  })
})

t.test('a relevant change shortens a long wait', async t => {
  const { budgets, use, pass } = setup()
  for (let times = 0; times < 5; times++) pass(use('failed_write'))
  t.equal(use('failed_write'), 0)
  t.ok(use('failed_write') >= 40)
  budgets.relax('shop')
  t.equal(use('failed_write'), 10)
})

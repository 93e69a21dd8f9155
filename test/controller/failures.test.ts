import t from 'tap'
import type { RetryPolicy } from '../../src/controller/failures.ts'
import { createFailures } from '../../src/controller/failures.ts'

const quota: RetryPolicy = {
  code: 'refused',
  message: 'refused: quota',
  isTheirs: true,
  again: { initialDelay: 60_000, maxDelay: 300_000 },
}
const tooMany: RetryPolicy = {
  code: 'too_many_changes',
  message: 'the pull secret is changed too often',
  isTheirs: true,
  again: 'later',
  retryAfterMs: 60_000,
}

function setup() {
  const state = { digest: 'a' }
  const failures = createFailures({ retry: () => {}, digest: () => state.digest })
  return { state, failures, message: () => failures.get('shop')?.message }
}

t.test('a relevant change ends a back-off, another change does not', async t => {
  const { state, failures, message } = setup()
  failures.refuse('shop', quota)
  failures.reconsider('shop')
  t.equal(message(), quota.message)
  state.digest = 'b'
  failures.reconsider('shop')
  t.equal(message(), undefined)
})

t.test('the wait for a budget is checked again only after a relevant change', async t => {
  const { state, failures } = setup()
  failures.refuse('shop', tooMany)
  t.equal(failures.reconsider('shop'), false)
  state.digest = 'b'
  t.equal(failures.reconsider('shop'), true)
})

t.test('a repeated failure keeps its reason when the budget is used up', async t => {
  const { state, failures, message } = setup()
  t.equal(failures.refuse('shop', quota), true)
  t.equal(failures.refuse('shop', tooMany), false)
  t.equal(message(), quota.message)
  state.digest = 'b'
  failures.refuse('shop', quota)
  failures.reconsider('shop')
  state.digest = 'c'
  failures.reconsider('shop')
  t.equal(failures.refuse('shop', tooMany), true, 'after a change it is the change')
  t.equal(message(), tooMany.message)
})

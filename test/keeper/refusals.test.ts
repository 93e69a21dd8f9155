import t from 'tap'
import type { Verdict } from '../../src/keeper/refusal.ts'
import { createRefusals } from '../../src/keeper/refusals.ts'

const quota: Verdict = {
  code: 'refused',
  message: 'refused: quota',
  isTheirs: true,
  again: { initialDelay: 60_000, maxDelay: 300_000 },
}
const tooMany: Verdict = {
  code: 'too_many_changes',
  message: 'the pull secret is changed too often',
  isTheirs: true,
  again: 'later',
  retryAfterMs: 60_000,
}

function setup() {
  const state = { digest: 'a' }
  const refusals = createRefusals({ retry: () => {}, digest: () => state.digest })
  return { state, refusals, message: () => refusals.get('shop')?.message }
}

t.test('a change that matters ends a back-off, another one does not', async t => {
  const { state, refusals, message } = setup()
  refusals.refuse('shop', quota)
  refusals.reconsider('shop')
  t.equal(message(), quota.message)
  state.digest = 'b'
  refusals.reconsider('shop')
  t.equal(message(), undefined)
})

t.test('the wait for a budget is looked at again only after such a change', async t => {
  const { state, refusals } = setup()
  refusals.refuse('shop', tooMany)
  t.equal(refusals.reconsider('shop'), false)
  state.digest = 'b'
  t.equal(refusals.reconsider('shop'), true)
})

t.test('a failure that repeats keeps its reason when its budget is used up', async t => {
  const { state, refusals, message } = setup()
  t.equal(refusals.refuse('shop', quota), true)
  t.equal(refusals.refuse('shop', tooMany), false)
  t.equal(message(), quota.message)
  state.digest = 'b'
  refusals.refuse('shop', quota)
  refusals.reconsider('shop')
  state.digest = 'c'
  refusals.reconsider('shop')
  t.equal(refusals.refuse('shop', tooMany), true, 'after a change it is the change')
  t.equal(message(), tooMany.message)
})

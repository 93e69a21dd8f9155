import { mock } from 'node:test'
import t, { type Test } from 'tap'
import { classify, type RetryPolicy } from '../../src/controller/failures.ts'
import { createFailures } from '../../src/controller/retries.ts'
import { createFailureStore, type Failure } from '../../src/failure.ts'
import { TokenError } from '../../src/issuer/issuer.ts'

const policy: RetryPolicy = {
  scope: 'namespace',
  code: 'any',
  message: 'any failure',
  passing: false,
  organization: undefined,
  again: { initialDelay: 1000, maxDelay: 60_000 },
  retryAfterMs: undefined,
  reported: 'namespace',
}
const quota: RetryPolicy = { ...policy, code: 'refused', message: 'refused: quota' }
const tooMany: RetryPolicy = {
  ...policy,
  code: 'too_many_changes',
  message: 'the pull secret is changed too often',
  passing: true,
  again: 'later',
  retryAfterMs: 60_000,
}
const outage: RetryPolicy = { ...policy, scope: 'organization', code: 'unavailable', passing: true }
const refusedLogin: RetryPolicy = {
  ...policy,
  scope: 'environment',
  code: 'login_refused',
  again: { initialDelay: 1000, maxDelay: 1000 },
}

/** Namespaces `x/1`, `x/2`, ... use organization `x`. */
function setup(t: Test) {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const state = { digest: 'a', nowMs: 0 }
  const store = createFailureStore()
  const tried: string[] = []
  const failures = createFailures({
    store,
    retry: namespace => void tried.push(namespace),
    digest: () => state.digest,
    organizationOf: namespace => namespace.split('/')[0],
    now: () => new Date(state.nowMs),
  })
  /** In small steps: a timer that fires may start another. */
  const pass = (ms: number) => {
    for (let passed = 0; passed < ms; passed += 100) {
      state.nowMs += 100
      mock.timers.tick(100)
    }
  }
  return { state, store, failures, tried, pass, message: () => failures.get('shop')?.message }
}

t.test('a relevant change ends a back-off, another change does not', async t => {
  const { state, failures, message } = setup(t)
  failures.refuse('shop', quota)
  failures.reconsider('shop')
  t.equal(message(), quota.message)
  state.digest = 'b'
  failures.reconsider('shop')
  t.equal(message(), undefined)
})

t.test('the wait for a limit is checked again only after a relevant change', async t => {
  const { state, failures } = setup(t)
  failures.refuse('shop', tooMany)
  t.equal(failures.reconsider('shop'), false)
  state.digest = 'b'
  t.equal(failures.reconsider('shop'), true)
})

t.test('a repeated failure keeps its reason when the limit is reached', async t => {
  const { state, failures, message } = setup(t)
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

t.test('the trouble of one organization is its own', async t => {
  const { failures, store } = setup(t)
  failures.refuse('acme/1', outage)
  t.equal(failures.reason('acme/2')?.message, outage.message)
  t.equal(failures.reason('other/1'), undefined)
  failures.succeeded('other/1', true)
  t.equal(store.all('organization').length, 1, 'what works elsewhere does not end it')
})

t.test('however many namespaces wait for an organization, one at a time tries', async t => {
  const { failures, tried, pass } = setup(t)
  const names = Array.from({ length: 100 }, (_, n) => `acme/${n}`)
  t.equal(names.filter(name => failures.refuse(name, outage)).length, 1, 'it is new once')
  pass(10_000)
  t.ok(tried.length >= 2 && tried.length <= 10, `${tried.length} tries in ten seconds`)
  const before = tried.length
  failures.refuse('acme/0', outage)
  pass(60_000)
  t.ok(tried.length - before <= 10, `${tried.length - before} more in a minute`)
  t.not(tried.at(-1), 'acme/0', 'the next one tries')
})

t.test('when one that waited works, all the others of its organization are tried', async t => {
  const { failures, store, tried } = setup(t)
  for (const name of ['acme/1', 'acme/2', 'acme/3', 'other/1']) failures.refuse(name, outage)
  failures.succeeded('acme/1', true)
  t.strictSame(tried, ['acme/2', 'acme/3'])
  t.strictSame(
    store.all('organization').map(({ subject }) => subject),
    ['other'],
  )
})

t.test('an answer of the environment lets all go on that wait for it, and no others', async t => {
  const { failures, tried } = setup(t)
  failures.refuse('acme/1', refusedLogin)
  failures.refuse('acme/2', refusedLogin)
  failures.refuse('other/1', outage)
  failures.environmentAnswers()
  t.strictSame(tried, ['acme/1', 'acme/2'])
  t.equal(failures.get('acme/1'), undefined)
  t.ok(failures.get('other/1'))
})

t.test('other credentials let go on what waits for the environment or an organization', async t => {
  const { failures, tried } = setup(t)
  failures.refuse('acme/1', refusedLogin)
  failures.refuse('other/1', outage)
  failures.refuse('other/2', { ...policy, scope: 'cluster' })
  failures.credentialsChanged()
  t.strictSame(tried, ['acme/1', 'other/1'])
  t.ok(failures.get('other/2'))
})

t.test('a locked account is tried every second: the issuer has no timer', async t => {
  const { failures, tried, pass } = setup(t)
  const error = new TokenError('locked', {
    kind: 'locked',
    scope: 'environment',
    code: 'account_locked',
    retryAfterMs: 600_000,
  })
  failures.refuse('acme/1', classify(error))
  pass(3100)
  t.strictSame(tried, ['acme/1', 'acme/1', 'acme/1'])
})

t.test('only the namespace that reaches a limit of the issuer waits for it', async t => {
  const { failures, tried, pass } = setup(t)
  for (const code of ['mint_limit', 'revoke_limit']) {
    const error = new TokenError('the limit is reached', {
      kind: 'transient',
      scope: 'environment',
      code,
      retryAfterMs: 30_000,
      sent: false,
    })
    failures.refuse(`acme/${code}`, classify(error))
  }
  t.equal(failures.reason('acme/1'), undefined)
  pass(29_000)
  t.strictSame(tried, [])
  pass(2000)
  t.strictSame(tried, ['acme/mint_limit', 'acme/revoke_limit'])
})

t.test('a pause that the other side asks for holds for all that wait', async t => {
  const { failures, tried, pass } = setup(t)
  failures.refuse('acme/1', outage)
  failures.refuse('acme/2', { ...outage, retryAfterMs: 30_000 })
  pass(29_000)
  t.strictSame(tried, [])
  pass(2000)
  t.ok(tried.length > 0)
})

t.test('the reason of the environment comes before that of a namespace', async t => {
  const { failures } = setup(t)
  failures.refuse('acme/1', quota)
  t.equal(failures.reason('acme/1')?.message, quota.message)
  failures.refuse('other/1', refusedLogin)
  t.equal(failures.reason('acme/1')?.code, 'login_refused')
  failures.clear('other/1')
  t.equal(failures.reason('acme/1')?.message, quota.message, 'with the last that waits it ends')
})

t.test("the issuer's word on the environment counts while nothing waits for it", async t => {
  const { failures, store } = setup(t)
  const failure: Failure = {
    scope: 'environment',
    subject: '',
    code: 'login_refused',
    message: 'refused',
    passing: false,
    retryAt: undefined,
  }
  failures.environmentIs(failure)
  t.equal(store.get('environment')?.message, 'refused')
  failures.environmentIs(undefined)
  t.equal(store.get('environment'), undefined)
  failures.refuse('acme/1', refusedLogin)
  failures.environmentIs(undefined)
  t.ok(store.get('environment'), 'one that waits knows better')
})

t.test(
  'what the leader before said of an organization ends where nothing waits for it',
  async t => {
    const { failures, store } = setup(t)
    const of = (subject: string): Failure => ({
      scope: 'organization',
      subject,
      code: 'unavailable',
      message: 'any failure',
      passing: true,
      retryAt: undefined,
    })
    store.replaceShared([of('acme'), of('other')])
    t.ok(failures.reason('acme/1') && failures.reason('other/1'))
    failures.refuse('acme/1', outage)
    failures.forgetInherited()
    t.ok(failures.reason('acme/1'))
    t.notOk(failures.reason('other/1'))
  },
)

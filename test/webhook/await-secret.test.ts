import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import { createFailureStore } from '../../src/failure.ts'
import { createPullSecretIndex } from '../../src/pull-secret/cache.ts'
import { createIsOptedIn, createSecretMissing } from '../../src/webhook/await-secret.ts'

const rules = { secretName: 'pullpass-registry', registryHost: 'registry.d.example.com' }
const optedIn = { 'pullpass.io/inject': 'enabled' }
const namespaceOf = (name: string, labels = {}) => ({
  metadata: { name, labels, resourceVersion: '7', uid: `uid-of-${name}` },
})

function setup(read: (name: string) => Promise<ReturnType<typeof namespaceOf> | undefined>) {
  const index = createPullSecretIndex(rules)
  const asked: string[] = []
  const readNamespace = (name: string) => {
    asked.push(name)
    return read(name)
  }
  return { index, asked, isOptedIn: createIsOptedIn({ index, store: { readNamespace } }) }
}

t.test('an unknown namespace is opted in if a live read finds the label', async t => {
  const { index, asked, isOptedIn } = setup(async name =>
    name === 'gone' ? undefined : namespaceOf(name, name === 'shop' ? optedIn : {}),
  )
  t.equal(await isOptedIn('shop', 1000), true)
  t.ok(index.namespaces.get('shop'), 'the cache knows it')
  t.equal(await isOptedIn('quiet', 1000), false)
  t.equal(await isOptedIn('gone', 1000), false)
  for (const name of ['shop', 'quiet', 'gone']) await isOptedIn(name, 1000)
  t.strictSame(asked, ['shop', 'quiet', 'gone'], 'each was read once')
})

t.test('reviews of one namespace share one live read', async t => {
  const { asked, isOptedIn } = setup(async name => namespaceOf(name, optedIn))
  await Promise.all(Array.from({ length: 100 }, () => isOptedIn('shop', 1000)))
  t.strictSame(asked, ['shop'])
})

t.test('a live read that fails or is late leaves the decision to the API server', async t => {
  const failing = setup(() => Promise.reject(new Error('HTTP 500')))
  t.equal(await failing.isOptedIn('shop', 1000), true)
  const answer = Promise.withResolvers<undefined>()
  const late = setup(() => answer.promise)
  t.equal(await late.isOptedIn('shop', 0), true)
  t.strictSame(late.asked, ['shop'], 'the read is begun all the same')
  answer.resolve(undefined)
  await turn()
  t.equal(await late.isOptedIn('shop', 0), false, 'and the next review knows what it found')
})

t.test('invented namespaces cost a limited number of reads, and block no pod', async t => {
  const gone = Promise.withResolvers<undefined>()
  const { index, asked, isOptedIn } = setup(() => gone.promise)
  const forged = Array.from({ length: 5000 }, (_, n) => isOptedIn(`forged-${n}`, 0))
  t.ok((await Promise.all(forged)).every(answer => answer))
  t.ok(asked.length <= 10, `${asked.length} reads`)
  t.equal(await isOptedIn('shop', 60_000), true, 'no waiting behind them')
  t.strictSame([...index.names()], [])
  gone.resolve(undefined)
})

function setupMissing(waitMs = 60_000) {
  const index = createPullSecretIndex(rules)
  const failures = createFailureStore()
  const wanted: string[] = []
  const controller = {
    want: (namespace: string) => void wanted.push(namespace),
    failure: (namespace: string) =>
      failures.get('environment') ?? failures.get('namespace', namespace),
  }
  const missing = createSecretMissing({ index, controller, failures }, { waitMs })
  const fail = (scope: 'environment' | 'namespace', subject: string) =>
    failures.set({
      ...{ scope, subject, code: 'any', message: `${scope} fails` },
      ...{ passing: true, retryAt: undefined },
    })
  return { index, failures, wanted, fail, missing }
}

const shop = { namespace: 'shop', dryRun: false }
const notReady =
  'not ready yet; the kubelet will retry; if this lasts, see the events of namespace shop'

t.test('a namespace that the cache does not know leaves nothing in memory', async t => {
  const { wanted, missing } = setupMissing()
  for (let n = 0; n < 1000; n++) {
    await missing({ namespace: `forged-${n}`, dryRun: false }, 60_000)
  }
  t.strictSame(wanted, [])
})

t.test('a review with a short timeout does not shorten the wait of another', async t => {
  const { index, fail, missing } = setupMissing(60_000)
  index.namespaces.upsert(namespaceOf('shop', optedIn))
  for (const leftMs of [0, 0.5, 1.7]) t.equal(await missing(shop, leftMs), notReady)
  let answered = false
  const patient = missing(shop, 60_000).finally(() => {
    answered = true
  })
  await turn()
  t.notOk(answered, 'it waits')
  fail('namespace', 'shop')
  await patient
})

t.test('a review that waits ends with the failure of its namespace or of all', async t => {
  for (const scope of ['environment', 'namespace'] as const) {
    const { index, fail, missing } = setupMissing()
    index.namespaces.upsert(namespaceOf('shop', optedIn))
    let answered = false
    const waiting = missing(shop, 60_000).finally(() => {
      answered = true
    })
    fail('namespace', 'another')
    await turn()
    t.notOk(answered, 'the failure of another namespace ends nothing')
    fail(scope, scope === 'namespace' ? 'shop' : '')
    t.equal(await waiting, `${scope} fails`)
    t.equal(await missing(shop, 60_000), `${scope} fails`, 'the next one does not wait')
  }
})

t.test('the number of waiting reviews is limited, others are answered at once', async t => {
  const { index, fail, missing } = setupMissing()
  index.namespaces.upsert(namespaceOf('shop', optedIn))
  const waiting = Array.from({ length: 200 }, () => missing(shop, 60_000))
  t.equal(await missing(shop, 60_000), notReady)
  fail('namespace', 'shop')
  await Promise.all(waiting)
})

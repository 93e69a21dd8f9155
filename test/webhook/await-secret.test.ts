import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
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
  const wanted: string[] = []
  const signals = new Map<string, AbortController>()
  const controller = {
    want: (namespace: string) => void wanted.push(namespace),
    failure: () => undefined,
    whenFailed: (namespace: string) => {
      const controller = signals.get(namespace) ?? new AbortController()
      signals.set(namespace, controller)
      return controller.signal
    },
  }
  const missing = createSecretMissing({ index, controller, waitMs })
  return { index, wanted, signals, missing }
}

t.test('a namespace that the cache does not know leaves nothing in memory', async t => {
  const { wanted, signals, missing } = setupMissing()
  for (let n = 0; n < 1000; n++) {
    await missing({ namespace: `forged-${n}`, dryRun: false }, 60_000)
  }
  t.strictSame([wanted, signals.size], [[], 0])
})

t.test('a review with a short timeout does not shorten the wait of another', async t => {
  const { index, signals, missing } = setupMissing(60_000)
  index.namespaces.upsert(namespaceOf('shop', optedIn))
  for (const leftMs of [0, 0.5, 1.7]) {
    t.equal(await missing({ namespace: 'shop', dryRun: false }, leftMs), 'it does not exist yet')
  }
  let answered = false
  const patient = missing({ namespace: 'shop', dryRun: false }, 60_000).finally(() => {
    answered = true
  })
  await turn()
  t.notOk(answered, 'it waits')
  signals.get('shop')?.abort()
  await patient
})

t.test('the number of waiting reviews is limited, others are answered at once', async t => {
  const { index, signals, missing } = setupMissing()
  index.namespaces.upsert(namespaceOf('shop', optedIn))
  const waiting = Array.from({ length: 200 }, () =>
    missing({ namespace: 'shop', dryRun: false }, 60_000),
  )
  t.equal(await missing({ namespace: 'shop', dryRun: false }, 60_000), 'it does not exist yet')
  signals.get('shop')?.abort()
  await Promise.all(waiting)
})

import t from 'tap'
import { namespaceOf } from '../../sandbox/descriptions.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { notReady } from '../../src/webhook/await-secret.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { pod, references } from './pods.ts'

// A killed leader is replaced after its Lease expires.
const leader = { leaseSeconds: 4, renewSeconds: 1 }
const fixture = await startFixture(t, startSandbox({ settings: { leader } }))
const { environment, pullpass } = fixture

const names = (prefix: string) => Array.from({ length: 20 }, (_, index) => `${prefix}-${index}`)

/** Tokens of namespaces, without the marks of leaders. */
const minted = () => environment.ledger.mints().filter(namespaceOf)

/** The live tokens of each namespace, and how often one was minted for it. */
const tokensOf = (namespaces: string[]) =>
  namespaces.map(name => [fixture.liveTokens(name).length, fixture.mints(name).length])

/** 20 namespaces are labelled, and in each of them 5 pods are created right after, all at once. */
async function rush(prefix: string) {
  const namespaces = names(prefix)
  const created = await Promise.all(
    namespaces.map(async name => {
      await fixture.namespace(name)
      return Promise.all([1, 2, 3, 4, 5].map(index => fixture.create(name, pod(`pod-${index}`))))
    }),
  )
  return { namespaces, created: created.flat() }
}

const injected = Array(100).fill([201, ['pullpass-registry']])
const summary = ({ created }: Awaited<ReturnType<typeof rush>>) =>
  created.map(({ status, body }) => [status, references(body)])

t.test('100 pods that are created at once in 20 new namespaces share 20 tokens', async t => {
  const rushed = await rush('rush')
  t.same(summary(rushed), injected)
  for (const name of rushed.namespaces) await fixture.whenSecret(name)
  t.same(tokensOf(rushed.namespaces), Array(20).fill([1, 1]))
})

t.test('100 pods in 20 new namespaces share 20 tokens if each mint takes 3 s', async t => {
  environment.faults.set('mint', { answerLatencyMs: 3000 })
  t.teardown(() => environment.faults.clear())
  const started = performance.now()
  const rushed = await rush('slow')
  t.same(summary(rushed), injected)
  t.ok(performance.now() - started < 12_000, 'no pod waited for the last mint')
  const warnings = new Set(rushed.created.flatMap(each => each.warnings))
  const allowed = rushed.namespaces.map(name => `pull secret pullpass-registry: ${notReady(name)}`)
  t.ok(warnings.size > 0)
  t.same(
    [...warnings].filter(warning => !allowed.includes(warning)),
    [],
  )
  for (const name of rushed.namespaces) await fixture.whenSecret(name, undefined, 40_000)
  t.same(tokensOf(rushed.namespaces), Array(20).fill([1, 1]))
})

t.test('a controller that is killed between mint and write mints no second time', async t => {
  const killed = Promise.withResolvers<void>()
  let count = 0
  const forget = environment.on('mint', () => {
    count += 1
    if (count < 7) return
    pullpass.process().signal('SIGKILL')
    killed.resolve()
  })
  const namespaces = names('killed')
  await Promise.all(namespaces.map(name => fixture.namespace(name)))
  await killed.promise
  await pullpass.process().ended
  forget()
  const written = await Promise.all(namespaces.map(name => fixture.secret(name)))
  const before = minted().length
  const minted1 = namespaces.filter(name => fixture.mints(name).length > 0)
  t.ok(
    written.filter(Boolean).length < minted1.length,
    'a token was minted that no Secret holds: the kill was between the two',
  )
  await pullpass.restart()
  for (const name of namespaces) await fixture.whenSecret(name, undefined, 40_000)
  t.same(tokensOf(namespaces), Array(20).fill([1, 1]))
  t.equal(minted().length - before, 20 - minted1.length, 'no token was lost')
  t.ok(pullpass.lines('pull secret written with a token found').length > 0, 'one was found again')
})

t.test('the Secret of each namespace holds the token that was minted for it', async t => {
  for (const name of [...names('rush'), ...names('killed')]) {
    const secret = await fixture.secret(name)
    const [token] = fixture.liveTokens(name)
    const data = Buffer.from(secret?.data?.['.dockerconfigjson'] ?? '', 'base64').toString()
    t.ok(
      token !== undefined &&
        JSON.parse(data).auths[environment.hosts.registry].password === token.text,
    )
    t.equal(secret?.metadata?.annotations?.['pullpass.io/token-id'], token?.id)
    t.match(token, { permanent: true, write: false, organization: /.+/ })
  }
})

testInvariants(t, fixture)

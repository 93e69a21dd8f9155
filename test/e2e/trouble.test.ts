import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { pod, references } from './pods.ts'

const wrongKey = 'wrong-Kq7vZ2mB9xL4'
const fixture = await startFixture(t, startSandbox({ apiKey: wrongKey }))
const { environment, pullpass } = fixture
fixture.confide(wrongKey)
const names = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, index) => `${prefix}-${index}`)
const requests = () => fixture.count('pullpass_bluemix_requests_total')

/** A pod in a namespace that was labelled a moment ago, and how long its creation took. */
async function newPod(namespace: string) {
  await fixture.namespace(namespace)
  const started = performance.now()
  const { status, body, warnings } = await fixture.create(namespace, pod('mypod'))
  return { outcome: [status, references(body)], warnings, tookMs: performance.now() - started }
}
const injected = [201, ['pullpass-registry']]

t.test('with a wrong API key, pods are admitted with a warning and its reason', async t => {
  for (const name of names('wrong', 3)) {
    const { outcome, warnings } = await newPod(name)
    t.same(outcome, injected)
    t.match(warnings, [/^pull secret pullpass-registry: .*(API key|login|credential)/i])
  }
  const { stderr } = await fixture.kubectl('create -n wrong-0 -f FILE', pod('shown'))
  t.match(stderr, /^Warning: pull secret pullpass-registry: /)
})

t.test('a wrong API key is tried once, and the replica stays ready with a warning', async t => {
  const begun = await requests()
  for (const name of names('wrong', 3)) await fixture.create(name, pod('another'))
  t.equal(environment.ledger.logins().length, 1)
  t.same(environment.ledger.mints(), [])
  const { status, ready, warnings } = await pullpass.readyz()
  t.same([status, ready], [200, true])
  t.match(warnings.join(), /refuse|wrong|log in/i)
  t.ok((await requests()) - begun <= 1, 'nothing more is asked of the environment')
  t.equal(await fixture.count('pullpass_environment_problem'), 1)
  t.equal(await fixture.count('pullpass_logins_total'), 1)
  t.equal(await fixture.count('pullpass_namespaces{state="refused"}'), 4)
})

t.test('when the key file is corrected, the Secrets appear without a restart', async t => {
  const { pid } = pullpass.process()
  await pullpass.writeApiKey(environment.apiKey)
  for (const name of names('wrong', 3)) await fixture.whenSecret(name, undefined, 10_000)
  t.same(
    environment.ledger.logins().map(({ outcome }) => outcome === 'granted'),
    [false, true],
  )
  t.equal(pullpass.process().pid, pid)
  const isWell = async () => (await pullpass.readyz()).warnings.length === 0
  await waitFor(isWell, { withinMs: 5000, what: 'the note to go' })
  t.equal(await fixture.count('pullpass_environment_problem'), 0)
  const { warnings } = await fixture.create('wrong-0', pod('after'))
  t.same(warnings, [])
})

t.test('while the environment is down, pods are admitted with the reference in time', async t => {
  environment.faults.set('*', { down: true })
  for (const name of names('down', 3)) {
    const { outcome, warnings, tookMs } = await newPod(name)
    t.same(outcome, injected)
    t.match(warnings, [/^pull secret pullpass-registry: .*registry|environment|answer/])
    t.ok(tookMs < 4000, `it took ${Math.round(tookMs)} ms`)
  }
})

t.test('an environment that is down gets few requests, however many namespaces wait', async t => {
  await Promise.all(names('many', 20).map(name => fixture.namespace(name)))
  const refused = async () => (await fixture.count('pullpass_namespaces{state="refused"}')) >= 23
  await waitFor(refused, { withinMs: 20_000, what: 'all of them to be refused' })
  const [begun, started] = [await requests(), performance.now()]
  const isAskedAgain = async () => (await requests()) >= begun + 3
  await waitFor(isAskedAgain, { withinMs: 40_000, what: 'the environment to be asked again' })
  const perSecond = ((await requests()) - begun) / ((performance.now() - started) / 1000)
  t.ok(perSecond <= 3, `${perSecond.toFixed(2)} requests per second`)
  t.equal((await pullpass.readyz()).ready, true)
})

t.test('no Secret is written while there is no token', async t => {
  const audit = await fixture.controlPlane.audit()
  const written = audit.filter(
    ({ verb, objectRef, requestURI }) =>
      objectRef?.resource === 'secrets' &&
      verb === 'patch' &&
      !requestURI.includes('dryRun') &&
      /^(down|many)-/.test(objectRef.namespace ?? ''),
  )
  t.same(written, [])
})

t.test('all Secrets exist within 10 s after the environment is back', async t => {
  environment.faults.clear()
  const returned = performance.now()
  const namespaces = [...names('down', 3), ...names('many', 20)]
  await Promise.all(namespaces.map(name => fixture.whenSecret(name)))
  const tookMs = performance.now() - returned
  t.ok(tookMs < 10_000, `it took ${Math.round(tookMs)} ms`)
  t.same(
    namespaces.map(name => [fixture.liveTokens(name).length, fixture.mints(name).length]),
    Array(namespaces.length).fill([1, 1]),
  )
  t.equal((await pullpass.readyz()).warnings.length, 0)
})

t.test('rate limits, broken responses and HTML cost no token and no Secret', async t => {
  const faults = [
    { fail: 'rate_limited', times: 2 },
    { fail: 'truncated', times: 1 },
    { fail: 'error_html', times: 2 },
    { fail: 'reset', when: 'after', times: 1 },
  ] as const
  for (const [index, fault] of faults.entries()) {
    environment.faults.set('mint', fault)
    await fixture.namespace(`flaky-${index}`)
    await fixture.whenSecret(`flaky-${index}`, undefined, 30_000)
    t.equal(fixture.liveTokens(`flaky-${index}`).length, 1, fault.fail)
  }
})

t.test('a new key is used without a new mint while everything works', async t => {
  const before = environment.ledger.mints().length
  const key = 'next-Jw5tR8nH3cY6'
  fixture.confide(key)
  environment.user.apiKeys.push(key)
  await pullpass.writeApiKey(key)
  const logins = environment.ledger.logins().length
  await fixture.namespace('after-the-change')
  await fixture.whenSecret('after-the-change')
  t.ok(environment.ledger.logins().length <= logins + 1)
  t.equal(environment.ledger.mints().length, before + 1)
})

testInvariants(t, fixture)

import type { V1Lease } from '@kubernetes/client-node'
import t from 'tap'
import { startControlPlane } from '../../sandbox/control-plane.ts'
import { installBeside } from '../../sandbox/install.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { reachEnvironment } from '../sandbox/bluemix-caller.ts'
import { type CleanUpOptions, runCleanUp } from './clean-up.ts'
import { reachCluster } from './cluster.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { secretsOf } from './tenant.ts'

const settings = {
  controller: { listEverySeconds: 5, revokeGraceSeconds: 3600 },
  bluemix: { timeoutMs: 60_000 },
}
const fixture = await startFixture(t, startSandbox({ settings }))
const { environment, controlPlane, pullpass } = fixture
const { faults, ledger } = environment
const caller = reachEnvironment(t, environment)
const leasePath = '/apis/coordination.k8s.io/v1/namespaces/pullpass/leases'

async function cleanUp(options: CleanUpOptions = {}) {
  const ended = await runCleanUp({ environment, controlPlane }, options)
  fixture.hear(ended.output)
  return { ...ended, lines: linesOf(ended.output) }
}

/** What is not of the log. */
const linesOf = (output: string) =>
  output.split('\n').filter(line => line !== '' && !line.startsWith('{'))

const clusterId = async () =>
  (await fixture.ask<{ metadata: { uid: string } }>('GET', '/api/v1/namespaces/kube-system')).body
    .metadata.uid

/** Live marks under this name. */
const marks = (cluster: string) =>
  ledger.liveTokens().filter(({ description }) => description.startsWith(`pullpass/${cluster}//`))

async function mint(description: string, permanent = true): Promise<void> {
  const query = `?${permanent ? 'permanent=true&' : ''}description=${encodeURIComponent(description)}`
  await caller.mint(query)
}

await fixture.namespace('stays')
await fixture.namespace('leaves')
await fixture.whenSecret('stays')
await fixture.whenSecret('leaves')
await fixture.label('leaves', null)

t.test('with a wrong key it fails, and says why', async t => {
  fixture.confide('wrong-Kq7vZ2mB9xL4')
  const { code, output } = await cleanUp({ apiKey: 'wrong-Kq7vZ2mB9xL4' })
  t.equal(code, 1)
  t.notMatch(output, /nothing to clean up/)
  t.match(output, /pullpass: .*(refuse|log in|login|key)/i)
  t.equal(fixture.liveTokens('leaves').length, 1)
})

t.test('beside the leader it takes back what no label asks for, and nothing else', async t => {
  const { code, output } = await cleanUp()
  t.equal(code, 0, output)
  t.match(output, /leaves: Secret deleted/)
  t.match(output, /leaves: token revoked/)
  t.equal(await fixture.secret('leaves'), undefined)
  t.same([fixture.liveTokens('leaves').length, fixture.liveTokens('stays').length], [0, 1])
  t.not(await fixture.secret('stays'), undefined)
})

t.test('it raises no alarm', async t => {
  const lists = ledger.lists().length
  const isListed = () => ledger.lists().length > lists + 2
  await waitFor(isListed, { withinMs: 60_000, what: 'two lists' })
  t.same((await pullpass.readyz()).warnings, [])
})

t.test('a token that the leader has minted and not written yet is kept', async t => {
  const [old] = fixture.liveTokens('stays')
  faults.set('mint', { answerLatencyMs: 25_000 })
  t.teardown(() => faults.clear())
  await caller.tokens('DELETE', `/${old?.id}`)
  const isMinted = () => fixture.mints('stays').length === 2
  await waitFor(isMinted, { withinMs: 30_000, what: 'the new token' })
  const { code, lines } = await cleanUp()
  t.equal(code, 0)
  t.same(lines, ['nothing to clean up'])
  const [minted] = fixture.liveTokens('stays')
  await fixture.whenSecret(
    'stays',
    ({ metadata }) => metadata?.annotations?.['pullpass.io/token-id'] === minted?.id,
    60_000,
  )
  t.equal(fixture.mints('stays').length, 2)
})

t.test('in a clone of the cluster nothing of this one is revoked', async t => {
  const clone = await startControlPlane()
  t.teardown(() => clone.stop())
  const { domain } = environment
  const webhookUrl = 'https://127.0.0.1:1/mutate'
  await installBeside(clone, { domain, webhookUrl, failurePolicy: 'Ignore' })
  const cluster = reachCluster(clone, fixture.hear)
  t.teardown(() => cluster.close())
  // What an etcd snapshot contains; nobody leads there.
  await cluster.namespace('stays', {})
  const { metadata, type, data } = (await fixture.secret('stays')) ?? {}
  const { name, labels, annotations } = metadata ?? {}
  const secret = { metadata: { name, labels, annotations }, type, data }
  await cluster.ask('POST', secretsOf('stays'), secret)
  const lease = (await fixture.ask<V1Lease>('GET', `${leasePath}/pullpass`)).body
  await cluster.ask('POST', leasePath, {
    metadata: { name: 'pullpass', annotations: lease.metadata?.annotations },
    spec: lease.spec,
  })
  const clusterName = await clusterId()
  const { code, output } = await runCleanUp({ environment, controlPlane: clone }, { clusterName })
  fixture.hear(output)
  t.equal(code, 1, output)
  t.match(output, /^waiting until .*: \d+ s at most$/m)
  t.match(output, /^pullpass: another pullpass uses the name of this cluster.*clusterName/m)
  t.equal(fixture.liveTokens('stays').length, 1)
  t.ok(await cluster.secret('stays'), 'nor is a Secret deleted')
  t.equal(marks(clusterName).length, 1, 'its own mark is revoked')
})

t.test('without a leader it waits until its own mark has stood alone', async t => {
  await pullpass.process().stop(20_000)
  const isFree = async () =>
    !(await fixture.ask<V1Lease>('GET', `${leasePath}/pullpass`)).body.spec?.holderIdentity
  await waitFor(isFree, { withinMs: 20_000, what: 'the Lease to be free' })
  const cluster = await clusterId()
  await mint(`pullpass/${cluster}/never/1700000000`)
  const { code, lines } = await cleanUp()
  t.equal(code, 0)
  t.match(lines, [/^waiting until .*: 25 s at most$/, 'never: token revoked'])
  t.same(marks(cluster), [], 'and revokes its mark')
  t.equal(fixture.liveTokens('stays').length, 1)
  await pullpass.restart()
  t.same((await pullpass.readyz()).warnings, [])
})

t.test('with a former name it takes back what was minted under that name', async t => {
  await mint('pullpass/former/stays/1700000000')
  await mint('pullpass/former/gone/1700000000')
  await mint('pullpass/other/stays/1700000000')
  const before = fixture.liveTokens('stays').length
  t.equal(before, 3)
  const { code, output } = await cleanUp({ arguments: ['--cluster', 'former'] })
  t.equal(code, 0, output)
  t.match(output, /^stays: token revoked$/m)
  t.match(output, /^gone: token revoked$/m)
  const left = fixture.liveTokens('stays').map(({ description }) => description.split('/')[1])
  t.same(left.toSorted(), [await clusterId(), 'other'].toSorted())
})

t.test('with the name of another cluster that runs it revokes nothing', async t => {
  await mint('pullpass/other//4f1c2b9e-0000-4000-8000-000000000000', false)
  const { code, output } = await cleanUp({ arguments: ['--cluster', 'other'] })
  t.equal(code, 1)
  t.match(output, /^pullpass: another pullpass uses the name of this cluster, other/m)
  t.ok(fixture.liveTokens('stays').some(({ description }) => description.includes('/other/')))
})

t.test('an empty name is refused', async t => {
  t.match(await cleanUp({ arguments: ['--cluster', ''] }), { code: 2, output: /--cluster/ })
})

testInvariants(t, fixture)

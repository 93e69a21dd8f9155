import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { pod, references } from './pods.ts'

const fixture = await startFixture(t, startSandbox())
const { controlPlane, pullpass } = fixture

/** Opted-in namespaces, as the cache of pullpass counts them. */
const optedIn = () => fixture.count('pullpass_namespaces')

t.test('the caches are correct after etcd was restored from a backup', async t => {
  await fixture.namespace('before')
  await fixture.whenSecret('before')
  const before = await optedIn()
  const restore = await controlPlane.backUp()
  await pullpass.whenReady()
  await fixture.label('before', null)
  for (const name of ['after-1', 'after-2', 'after-3']) await fixture.namespace(name)
  for (const name of ['after-1', 'after-2', 'after-3']) await fixture.whenSecret(name)
  t.equal(await optedIn(), before + 2)
  // A backup is hours old, and much was written since then.
  for (let change = 0; change < 1000; change++) {
    const metadata = { annotations: { change: String(change) } }
    await fixture.ask('PATCH', '/api/v1/namespaces/default', { metadata })
  }

  await restore()
  await waitFor(async () => (await optedIn()) === before, {
    withinMs: 150_000,
    what: 'the cache to hold the namespaces of the backup',
  })
  t.equal((await pullpass.readyz()).status, 200)
  const { status, body } = await fixture.create('before', pod('mypod'))
  t.same([status, references(body)], [201, ['pullpass-registry']])
  t.ok(await fixture.secret('before'))
  t.ok(fixture.liveTokens('before').length === 1)
})

t.test('a namespace that is created after the restore gets its Secret', async t => {
  await fixture.namespace('later')
  await fixture.whenSecret('later')
  const { status, body } = await fixture.create('later', pod('mypod'))
  t.same([status, references(body)], [201, ['pullpass-registry']])
})

testInvariants(t, fixture)

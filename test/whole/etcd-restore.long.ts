import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { pod, references } from './pods.ts'
import { closeScene, startScene } from './scene.ts'

const scene = await startScene(t, startSandbox())
const { controlPlane, pullpass } = scene

/** Opted-in namespaces, as the cache of pullpass counts them. */
const optedIn = () => scene.count('pullpass_namespaces')

t.test('the caches follow an API server whose etcd was restored from a backup', async t => {
  await scene.namespace('before')
  await scene.whenSecret('before')
  const before = await optedIn()
  const restore = await controlPlane.backUp()
  await pullpass.whenReady()
  await scene.label('before', null)
  for (const name of ['after-1', 'after-2', 'after-3']) await scene.namespace(name)
  for (const name of ['after-1', 'after-2', 'after-3']) await scene.whenSecret(name)
  t.equal(await optedIn(), before + 2)
  // A backup is hours old: until then much else was written.
  for (let change = 0; change < 1000; change++) {
    const metadata = { annotations: { change: String(change) } }
    await scene.ask('PATCH', '/api/v1/namespaces/default', { metadata })
  }

  await restore()
  await waitFor(async () => (await optedIn()) === before, {
    withinMs: 150_000,
    what: 'the cache to hold the namespaces of the backup',
  })
  t.equal((await pullpass.readyz()).status, 200)
  const { status, body } = await scene.create('before', pod('mypod'))
  t.same([status, references(body)], [201, ['pullpass-registry']])
  t.ok(await scene.secret('before'))
  t.ok(scene.liveTokens('before').length === 1)
})

t.test('what is made after the restore is served as before', async t => {
  await scene.namespace('later')
  await scene.whenSecret('later')
  const { status, body } = await scene.create('later', pod('mypod'))
  t.same([status, references(body)], [201, ['pullpass-registry']])
})

closeScene(t, scene)

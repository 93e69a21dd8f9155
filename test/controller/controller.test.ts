import t from 'tap'
import { KubernetesError } from '../../src/kubernetes/client.ts'
import { setup } from './fixture.ts'

const forbidden = new KubernetesError('cannot apply Secret shop/pullpass-registry: HTTP 403', {
  status: 403,
})

t.test('a rotation whose Secret cannot be written revokes only the new token', async t => {
  for (const canList of [true, false]) {
    const { environment, cluster, live, secret, advance, until } = setup(t, {
      rotateAfterMs: 60_000,
    })
    await until(() => secret() !== undefined, 'the Secret')
    environment.canList = canList
    cluster.refuse = () => forbidden
    advance(61_000)
    await until(() => cluster.applies >= 2 && live().length === 1, 'the refused renewal')
    t.strictSame(live(), ['token-1'], canList ? 'listed' : 'not listed')
    t.equal(secret()?.tokenId, 'token-1')
  }
})

t.test('an annotation of ours that somebody set is emptied, without a loop', async t => {
  for (const [key, value] of [
    ['pullpass.io/revoke-at', '2020-01-01T00:00:00Z'],
    ['pullpass.io/previous-token-id', 'token-of-nobody'],
    ['pullpass.io/expires-at', '2020-01-01T00:00:00Z'],
  ] as const) {
    const { environment, cluster, secret, live, until, sweeps } = setup(t)
    cluster.stranger = { [key]: value }
    await until(() => secret() !== undefined, 'the Secret')
    await sweeps()
    t.equal(environment.mints, 1, key)
    t.equal(cluster.applies, 2, 'written, and once more to empty it')
    t.strictSame(live(), ['token-1'])
  }
})

t.test('a token without a readable ID is found in the list, and not revoked', async t => {
  const { environment, secret, live, until, sweeps } = setup(t)
  environment.opaque = true
  await until(() => secret() !== undefined, 'the Secret')
  t.equal(secret()?.tokenId, 'token-1')
  await sweeps()
  t.strictSame(live(), ['token-1'])
})

t.test('a token whose ID cannot be found is not revoked as orphaned', async t => {
  const { environment, secret, live, until } = setup(t)
  environment.opaque = true
  environment.canList = false
  await until(() => secret() !== undefined, 'the Secret')
  environment.canList = true
  const before = environment.lists
  await until(() => environment.lists >= before + 3, 'three more looks')
  t.strictSame(live(), ['token-1'])
})

t.test('a Secret that lost our label keeps its token', async t => {
  const { cluster, index, secret, live, until, sweeps } = setup(t)
  await until(() => secret() !== undefined, 'the Secret')
  const stripped = structuredClone(cluster.secrets.get('shop'))
  if (stripped?.metadata === undefined) throw new Error('there is no Secret')
  stripped.metadata.labels = {}
  stripped.metadata.resourceVersion = '1000'
  cluster.secrets.set('shop', stripped)
  index.secrets.upsert(stripped)
  await sweeps()
  t.equal(secret()?.ours, false)
  t.strictSame(live(), ['token-1'])
})

t.test('an orphaned token is revoked, a token of another cluster is not', async t => {
  const { environment, secret, live, until } = setup(t)
  await until(() => secret() !== undefined, 'the Secret')
  const token = { text: 'x', expiresAt: undefined, revoked: false, readOnly: true }
  environment.tokens.push({ ...token, id: 'late', description: 'pullpass/cluster-1/shop' })
  environment.tokens.push({ ...token, id: 'theirs', description: 'pullpass/cluster-2/shop' })
  environment.tokens.push({ ...token, id: 'gone', description: 'pullpass/cluster-1/shop-2' })
  await until(() => !live().includes('late'), 'the orphaned token to be revoked')
  t.ok(live().includes('token-1'))
  t.ok(live().includes('theirs'))
})

t.test('a missing right is reported once, without the name of a namespace', async t => {
  const { cluster, controller, label, until } = setup(t)
  const grant = 'grant {apiGroups: [""], resources: ["secrets"], verbs: ["patch"]}'
  cluster.refuse = namespace => {
    const sentence = `User "x" cannot patch resource "secrets" in API group "" in the namespace "${namespace}"`
    const message = `cannot apply Secret ${namespace}/pull: HTTP 403: ${sentence}; ${grant}`
    return new KubernetesError(message, { status: 403, grant })
  }
  for (const name of ['bakery', 'market', 'aviary']) label(name)
  const names = ['aviary', 'bakery', 'market']
  await until(() => names.every(name => controller.failure(name)), 'every namespace to be refused')
  const [problem, ...more] = controller.problems()
  const sentence = 'User "x" cannot patch resource "secrets" in API group ""'
  t.equal(problem, `cannot apply a Secret: HTTP 403: ${sentence}; ${grant}`)
  t.same(more, [])
})

t.test('tokens of an organization that was removed from the settings are found', async t => {
  const { environment, secret, live, until, noted } = setup(t, {
    organization: 'acme-2',
    noted: '["acme"]',
  })
  const token = { text: 'x', expiresAt: undefined, revoked: false, readOnly: true }
  environment.tokens.push({ ...token, id: 'former', description: 'pullpass/cluster-1/shop' })
  environment.homes.set('former', 'acme')
  await until(() => secret() !== undefined, 'the Secret')
  await until(() => !live().includes('former'), 'the former token to be revoked')
  t.strictSame(live(), ['token-1'])
  await until(() => noted() === '["acme-2"]', 'the former organization to be forgotten')
})

t.test('an organization that is named only in a Secret is never requested', async t => {
  const { environment, cluster, index, secret, until, sweeps } = setup(t)
  await until(() => secret() !== undefined, 'the Secret')
  for (const [version, key] of ['organization', 'previous-token-id', 'token-id'].entries()) {
    const forged = structuredClone(cluster.secrets.get('shop'))
    if (forged?.metadata?.annotations === undefined) throw new Error('there is no Secret')
    forged.metadata.annotations[`pullpass.io/${key}`] = 'made-up'
    forged.metadata.resourceVersion = String(1000 + version)
    index.secrets.upsert(forged)
  }
  await sweeps()
  t.strictSame([...environment.asked], ['acme'])
  t.equal(environment.mints, 1)
})

t.test('a write that a quota refuses in the dry run costs no token and no list', async t => {
  const { environment, cluster, controller, label, until } = setup(t)
  cluster.refuseDryRun = namespace =>
    namespace === 'full' ? new KubernetesError('refused: quota', { status: 403 }) : undefined
  label('full')
  await until(() => controller.failure('full') !== undefined, 'the failure')
  t.equal(controller.failure('full')?.message, 'refused: quota')
  t.notOk(environment.tokens.some(({ description }) => description.endsWith('/full')))
  t.same(controller.problems(), [])
})

t.test('a Secret that somebody changes constantly is written at growing intervals', async t => {
  const { cluster, index, controller, secret, until } = setup(t)
  await until(() => secret() !== undefined, 'the Secret')
  const remove = async () => {
    const found = cluster.secrets.get('shop')
    if (found !== undefined) index.secrets.remove(found)
    cluster.secrets.delete('shop')
    await until(() => secret() !== undefined || controller.failure('shop') !== undefined, 'an end')
  }
  for (let times = 0; times < 5; times++) await remove()
  t.match(
    controller.failure('shop')?.message,
    /^the pull secret is changed too often; next try at /,
  )
  t.ok(cluster.applies <= 3, `${cluster.applies} writes`)
  t.same(controller.problems(), [])
})

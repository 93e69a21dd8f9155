import type { V1Secret } from '@kubernetes/client-node'
import t from 'tap'
import { KubernetesError } from '../../src/kubernetes/client.ts'
import { pullSecretManifest } from '../../src/pull-secret/pull-secret.ts'
import { jwt, rules, setup, tokenError } from './fixture.ts'

const forbidden = new KubernetesError('cannot apply Secret shop/pullpass-registry: HTTP 403', {
  status: 403,
})

type Fixture = ReturnType<typeof setup>

/** A row as another process minted it. */
function row(id: string, namespace: string, mintedAt?: Date) {
  const time = mintedAt === undefined ? '' : `/${Math.floor(mintedAt.getTime() / 1000)}`
  const description = `pullpass/cluster-1/${namespace}${time}`
  return { id, description, text: jwt(id), expiresAt: undefined, revoked: false, readOnly: true }
}

/** A Secret of ours in a namespace, with this token. */
function secretWith(namespace: string, id: string): V1Secret {
  const content = {
    namespace,
    token: { text: jwt(id), id, expiresAt: undefined },
    organization: 'acme',
    mintedAt: new Date(),
    previousTokenId: undefined,
    revokeAt: undefined,
  }
  return pullSecretManifest(content, rules)
}

const settled = async (fixture: Fixture) => {
  await fixture.until(() => fixture.secret() !== undefined, 'the Secret')
  await fixture.lists()
}

t.test('a first token costs one request, after the list of the term', async t => {
  const fixture = setup(t)
  await settled(fixture)
  fixture.label('market')
  const { environment, until, secret } = fixture
  const listsOf = environment.lists
  await until(() => secret('market') !== undefined, 'the Secret')
  t.equal(environment.mints, 2)
  t.ok(environment.lists - listsOf <= 1, 'no list for it')
  t.equal(environment.checks, 0)
})

t.test('a revoked token in a restored Secret is replaced', async t => {
  const fixture = setup(t)
  const { environment, put, until, held, live, lists } = fixture
  await settled(fixture)
  environment.tokens.push({ ...row('old', 'shop'), revoked: true })
  put(secretWith('shop', 'old'))
  await until(() => held() === 'token-1', 'the live token')
  await lists()
  t.strictSame(live(), ['token-1'])
  t.equal(environment.mints, 1, 'the live one was adopted')
})

t.test('a token revoked by hand is replaced when a list shows it', async t => {
  const fixture = setup(t)
  const { environment, until, held, live, lists } = fixture
  await settled(fixture)
  for (const token of environment.tokens) token.revoked = true
  await until(() => held() === 'token-2', 'another token')
  await lists()
  t.strictSame(live(), ['token-2'])
})

t.test('a Secret that is deleted while its token is revoked gets another', async t => {
  const fixture = setup(t)
  const { environment, remove, until, held } = fixture
  await settled(fixture)
  for (const token of environment.tokens) token.revoked = true
  remove('shop')
  await until(() => held() === 'token-2', 'another token')
})

t.test(
  'a copied Secret gets a token of its own where it is labelled, and is left alone elsewhere',
  async t => {
    const fixture = setup(t)
    const { cluster, put, label, until, held, live, lists, unlabel } = fixture
    await settled(fixture)
    unlabel('quiet')
    for (const name of ['market', 'quiet']) put(secretWith(name, 'token-1'))
    label('market')
    await until(() => held('market') === 'token-2', 'its own token')
    await lists()
    t.ok(cluster.secrets.has('quiet'))
    t.notOk(cluster.secrets.get('quiet')?.metadata?.annotations?.['pullpass.io/revoke-at'])
    t.strictSame(live(), ['token-1', 'token-2'])
  },
)

t.test('a Secret that lost our label gets it back, without force', async t => {
  const fixture = setup(t)
  const { cluster, secret, until, held } = fixture
  await settled(fixture)
  const stripped = structuredClone(cluster.secrets.get('shop'))
  if (stripped?.metadata === undefined) throw new Error('there is no Secret')
  stripped.metadata.labels = {}
  const before = cluster.forced
  fixture.put(stripped)
  await until(() => secret()?.ours === true, 'the label')
  t.equal(cluster.forced, before)
  t.equal(held(), 'token-1')
})

t.test('a Secret of somebody else is left alone and reported', async t => {
  const fixture = setup(t)
  const { cluster, controller, put, label, until } = fixture
  await settled(fixture)
  const theirs = { ...secretWith('market', 'theirs') }
  theirs.metadata = { ...theirs.metadata, labels: {} }
  put(theirs)
  const written = cluster.secrets.get('market')
  label('market')
  await until(() => controller.failure('market') !== undefined, 'the failure')
  t.equal(
    cluster.secrets.get('market')?.metadata?.resourceVersion,
    written?.metadata?.resourceVersion,
  )
})

t.test('a namespace that left loses its Secret first, then its token', async t => {
  const fixture = setup(t)
  const { environment, cluster, unlabel, advance, until, live } = fixture
  await settled(fixture)
  environment.failRevoke = () => tokenError('unavailable')
  unlabel('shop')
  await until(
    () =>
      cluster.secrets.get('shop')?.metadata?.annotations?.['pullpass.io/revoke-at'] !== undefined,
    'the grace',
  )
  advance(2000)
  await until(() => !cluster.secrets.has('shop'), 'the Secret to go')
  t.strictSame(live(), ['token-1'])
  environment.failRevoke = () => undefined
  advance(61_000)
  await until(() => live().length === 0, 'the token to be revoked')
})

t.test('a token that cannot be revoked is tried once a list, and costs no list', async t => {
  const fixture = setup(t, { listEveryMs: 400 })
  const { environment, until, lists } = fixture
  await settled(fixture)
  environment.tokens.push(row('spare', 'shop'))
  environment.failRevoke = () => tokenError('unavailable')
  await until(() => environment.revokes > 0, 'a try')
  const [revokes, before] = [environment.revokes, environment.lists]
  await lists()
  t.ok(environment.revokes - revokes <= environment.lists - before + 1)
})

t.test('while another acts under our identity nothing is deleted or revoked', async t => {
  const fixture = setup(t, { revokeGraceMs: 0 })
  const { environment, cluster, unlabel, until, live, lists } = fixture
  await settled(fixture)
  environment.alone = false
  environment.tokens.push(row('spare', 'shop'))
  unlabel('shop')
  await lists()
  t.strictSame(live(), ['token-1', 'spare'])
  t.ok(cluster.secrets.has('shop'))
  environment.alone = true
  await until(() => live().length === 0, 'both to be revoked')
})

t.test('more than ten dead at once: one goes first, and none follows a refusal', async t => {
  const fixture = setup(t)
  const { environment, controller, label, until, secret, held, advance } = fixture
  await settled(fixture)
  const names = Array.from({ length: 15 }, (_, index) => `ns-${index}`)
  for (const name of names) label(name)
  await until(() => names.every(name => secret(name)), 'all Secrets')
  const before = environment.mints
  let refusing = true
  const { refused } = environment
  const has = refused.has.bind(refused)
  refused.has = id => has(id) || (refusing && Number(id.split('-')[1]) > before)
  for (const token of environment.tokens) token.revoked = true
  await until(() => environment.mints === before + 1, 'the first')
  advance(61_000)
  await until(
    () => names.some(name => /refuses the tokens/.test(controller.failure(name)?.message ?? '')),
    'the report',
  )
  t.equal(environment.mints, before + 1)
  refusing = false
  advance(301_000)
  await until(() => environment.mints === before + 16, 'the others')
  t.ok(names.every(name => held(name) !== undefined))
})

t.test('a list that lacks rows, or is empty, costs no token and revokes none', async t => {
  const fixture = setup(t)
  const { environment, live, lists } = fixture
  await settled(fixture)
  const tokens = environment.tokens.splice(0)
  environment.failMint = () => tokenError('unavailable')
  const accepts = environment.checks
  // The registry knows them, the list does not.
  environment.tokens.push(...tokens)
  environment.homes.set('token-1', 'elsewhere')
  await lists()
  environment.homes.set('token-1', 'acme')
  await lists()
  t.equal(environment.mints, 1)
  t.strictSame(live(), ['token-1'])
  t.ok(environment.checks - accepts <= 1, 'the registry is asked once')
})

t.test('where lists fail three times in a row, first tokens are minted without', async t => {
  const fixture = setup(t)
  const { environment, controller, label, until, secret } = fixture
  environment.failList = () => tokenError('list_failed')
  label('market')
  await until(() => secret('market') !== undefined, 'the Secret')
  t.ok(environment.lists >= 3)
  t.equal(controller.failure('market'), undefined)
})

t.test('one organization that fails does not keep the others', async t => {
  const fixture = setup(t, { noted: '["broken"]' })
  const { environment, until, secret } = fixture
  environment.failList = organization =>
    organization === 'broken' ? tokenError('down') : undefined
  await until(() => secret() !== undefined, 'the Secret')
})

t.test('where lists are unsupported and answers are lost, three tokens are minted', async t => {
  const fixture = setup(t)
  const { environment, cluster, controller, until } = fixture
  environment.canList = false
  environment.failMint = () => tokenError('lost')
  cluster.stranger = {}
  const isLimited = () => /changed too often/.test(controller.failure('shop')?.message ?? '')
  await until(isLimited, 'the budget')
  t.equal(environment.mints, 3)
})

t.test('where lists fail and answers are lost, three tokens are minted', async t => {
  const fixture = setup(t)
  const { environment, cluster, controller, until } = fixture
  environment.failList = () => tokenError('down')
  environment.failMint = () => tokenError('lost')
  cluster.stranger = {}
  const isLimited = () => /changed too often/.test(controller.failure('shop')?.message ?? '')
  await until(isLimited, 'the budget')
  t.equal(environment.mints, 3)
})

t.test('where lists are supported a lost token is found and adopted', async t => {
  const fixture = setup(t)
  const { environment, until, held } = fixture
  let lost = false
  environment.failMint = () => {
    if (lost) return undefined
    lost = true
    return tokenError('lost')
  }
  await until(() => held() === 'token-1', 'the lost token')
  t.equal(environment.mints, 1)
})

t.test('an adopted token keeps its age', async t => {
  const fixture = setup(t, { rotateAfterMs: 3_600_000 })
  const { environment, remove, advance, until, held } = fixture
  await settled(fixture)
  advance(3_000_000)
  remove('shop')
  await until(() => held() === 'token-1', 'the same token')
  advance(700_000)
  await until(() => held() === 'token-2', 'the rotation')
  t.equal(environment.mints, 2)
})

t.test('a replaced token lives for its grace, and the annotation goes with it', async t => {
  const fixture = setup(t, { rotateAfterMs: 3_600_000, rotateGraceMs: 60_000 })
  const { advance, until, held, live, lists, secret } = fixture
  await settled(fixture)
  advance(3_700_000)
  await until(() => held() === 'token-2', 'the rotation')
  await lists()
  t.strictSame(live(), ['token-1', 'token-2'])
  t.equal(secret()?.previousTokenId, 'token-1')
  advance(61_000)
  await until(() => live().length === 1, 'the end of the grace')
  await until(() => secret()?.previousTokenId === undefined, 'the annotation to go')
})

t.test('waiting for the limit of mints takes no worker', async t => {
  const fixture = setup(t)
  const { environment, label, remove, until, secret, held } = fixture
  await settled(fixture)
  environment.mintsAvailableIn = () => 60_000
  const names = Array.from({ length: 20 }, (_, index) => `ns-${index}`)
  for (const name of names) label(name)
  remove('shop')
  await until(() => held() === 'token-1', 'the Secret that needs no mint')
  t.notOk(names.some(name => secret(name)))
  environment.mintsAvailableIn = () => 0
  for (const name of names) label(name)
  await until(() => names.every(name => secret(name)), 'the others')
})

t.test('the registry is asked soon after another changed the credential', async t => {
  const fixture = setup(t)
  const { environment, put, until, held } = fixture
  await settled(fixture)
  put(secretWith('shop', 'made-up'))
  await until(() => environment.checks > 0 && held() === 'token-1', 'our token')
  t.equal(environment.mints, 1)
})

t.test('a new leader asks the registry about no token that its first list shows', async t => {
  const { environment, put, lists, held } = setup(t)
  environment.tokens.push(row('minted-before', 'shop'))
  put(secretWith('shop', 'minted-before'))
  await lists()
  t.equal(held(), 'minted-before')
  t.equal(environment.checks, 0)
})

t.test('a token that the registry refuses is replaced, however live it is listed', async t => {
  const fixture = setup(t, { verifyEveryMs: 100 })
  const { environment, advance, until, held, live } = fixture
  await settled(fixture)
  environment.refused.add('token-1')
  advance(61_000)
  await until(() => held() === 'token-2', 'another token')
  await until(() => live().length === 1, 'the refused one to be revoked')
})

t.test(
  'a new token that the registry refuses is replaced when a list shows it as revoked',
  async t => {
    const fixture = setup(t, { verifyEveryMs: 100 })
    const { environment, controller, advance, until, held } = fixture
    await settled(fixture)
    environment.refused.add('token-1').add('token-2')
    advance(61_000)
    await until(() => held() === 'token-2', 'another token')
    const reason = () => controller.failure('shop')?.message ?? ''
    advance(61_000)
    await until(() => /refuses the tokens/.test(reason()), 'the report')
    for (const token of environment.tokens) token.revoked ||= token.id === 'token-2'
    advance(301_000)
    await until(() => held() === 'token-3', 'a third token')
  },
)

t.test('a renewal that cannot be written is not minted again and again', async t => {
  const { environment, cluster, live, held, secret, advance, until } = setup(t, {
    rotateAfterMs: 60_000,
  })
  await until(() => secret() !== undefined, 'the Secret')
  cluster.refuse = () => forbidden
  advance(61_000)
  await until(() => cluster.applies >= 2, 'the refused renewal')
  cluster.refuse = () => undefined
  advance(20_000)
  t.equal(held(), 'token-1')
  t.equal(environment.mints, 2)
  t.strictSame(live(), ['token-1', 'token-2'])
})

t.test('an annotation of ours that somebody set is emptied, without a loop', async t => {
  for (const [key, value] of [
    ['pullpass.io/revoke-at', '2020-01-01T00:00:00Z'],
    ['pullpass.io/previous-token-id', 'made-up'],
    ['pullpass.io/expires-at', '2020-01-01T00:00:00Z'],
  ] as const) {
    const { environment, cluster, secret, live, until, lists } = setup(t)
    cluster.stranger = { [key]: value }
    await until(() => secret() !== undefined, 'the Secret')
    await lists()
    t.equal(environment.mints, 1, key)
    t.equal(cluster.applies, 2, 'written, and once more to empty it')
    t.strictSame(live(), ['token-1'])
  }
})

t.test('a token whose text does not show its id is known by its hash', async t => {
  const { environment, secret, live, until, lists } = setup(t)
  environment.opaque = true
  await until(() => secret() !== undefined, 'the Secret')
  await lists()
  t.strictSame(live(), ['token-1'])
})

t.test('a spare token is revoked, one of another cluster is not', async t => {
  const { environment, secret, live, until, unlabel } = setup(t)
  await until(() => secret() !== undefined, 'the Secret')
  unlabel('plain')
  environment.tokens.push(row('late', 'shop', new Date()))
  environment.tokens.push({ ...row('theirs', 'shop'), description: 'pullpass/cluster-2/shop' })
  environment.tokens.push(row('plain', 'plain'))
  environment.tokens.push(row('gone', 'gone'))
  await until(() => live().length === 2, 'three tokens to be revoked')
  t.strictSame(live(), ['token-1', 'theirs'])
})

t.test('a missing right is reported once, without the name of a namespace', async t => {
  const { cluster, controller, problems, label, until } = setup(t)
  const grant = 'grant {apiGroups: [""], resources: ["secrets"], verbs: ["patch"]}'
  cluster.refuse = namespace => {
    const sentence = `User "x" cannot patch resource "secrets" in API group "" in the namespace "${namespace}"`
    const message = `cannot apply Secret ${namespace}/pull: HTTP 403: ${sentence}; ${grant}`
    return new KubernetesError(message, { status: 403, grant })
  }
  for (const name of ['bakery', 'market', 'aviary']) label(name)
  const names = ['aviary', 'bakery', 'market']
  await until(() => names.every(name => controller.failure(name)), 'every namespace to be refused')
  const [problem, ...more] = problems()
  const sentence = 'User "x" cannot patch resource "secrets" in API group ""'
  t.equal(problem, `cannot apply a Secret: HTTP 403: ${sentence}; ${grant}`)
  t.same(more, [])
})

t.test('tokens of an organization that was removed from the settings are found', async t => {
  const { environment, secret, live, until, noted } = setup(t, {
    organization: 'acme-2',
    noted: '["acme"]',
  })
  environment.tokens.push(row('former', 'shop'))
  environment.homes.set('former', 'acme')
  await until(() => secret() !== undefined, 'the Secret')
  await until(() => !live().includes('former'), 'the former token to be revoked')
  t.strictSame(live(), ['token-1'])
  await until(() => noted() === '["acme-2"]', 'the former organization to be forgotten')
})

t.test('an organization is not forgotten because some lists lack its tokens', async t => {
  const { environment, secret, live, until } = setup(t, {
    organization: 'acme-2',
    noted: '["acme"]',
  })
  environment.tokens.push(row('former', 'shop'))
  environment.homes.set('former', 'elsewhere')
  let lists = 0
  environment.failList = organization => {
    if (organization === 'acme') lists += 1
    if (lists === 6) environment.homes.set('former', 'acme')
    return undefined
  }
  await until(() => secret() !== undefined, 'the Secret')
  await until(() => !live().includes('former'), 'the former token to be revoked')
  t.strictSame(live(), ['token-1'])
})

t.test('an organization that is named only in a Secret is never requested', async t => {
  const { environment, cluster, secret, until, lists, put } = setup(t)
  await until(() => secret() !== undefined, 'the Secret')
  for (const key of ['organization', 'previous-token-id', 'token-id']) {
    const forged = structuredClone(cluster.secrets.get('shop'))
    if (forged?.metadata?.annotations === undefined) throw new Error('there is no Secret')
    forged.metadata.annotations[`pullpass.io/${key}`] = 'made-up'
    put(forged)
  }
  await lists()
  t.strictSame([...environment.asked], ['acme'])
  t.equal(environment.mints, 1)
})

t.test('a write that a quota refuses in the dry run costs no token and no list', async t => {
  const { environment, cluster, controller, problems, label, until } = setup(t)
  cluster.refuseDryRun = namespace =>
    namespace === 'full' ? new KubernetesError('refused: quota', { status: 403 }) : undefined
  label('full')
  await until(() => controller.failure('full') !== undefined, 'the failure')
  t.equal(controller.failure('full')?.message, 'refused: quota')
  t.notOk(environment.tokens.some(({ description }) => description.includes('/full/')))
  t.same(problems(), [])
})

t.test('a Secret that somebody changes constantly is written at growing intervals', async t => {
  const { cluster, controller, problems, secret, until, remove } = setup(t)
  await until(() => secret() !== undefined, 'the Secret')
  for (let times = 0; times < 8; times++) {
    remove('shop')
    await until(() => secret() !== undefined || controller.failure('shop') !== undefined, 'an end')
  }
  t.match(
    controller.failure('shop')?.message,
    /^the pull secret is changed too often; next try at /,
  )
  t.ok(cluster.applies <= 6, `${cluster.applies} writes`)
  t.same(problems(), [])
})

t.test('a Secret that is not managed by pullpass is one event of its namespace', async t => {
  const { cluster, index, controller, events, problems, label, until } = setup(t)
  const metadata = {
    name: 'pullpass-registry',
    namespace: 'theirs',
    uid: 'x',
    resourceVersion: '5',
  }
  const theirs = { metadata, type: 'Opaque' }
  cluster.secrets.set('theirs', theirs)
  index.secrets.upsert(theirs)
  label('theirs')
  await until(() => controller.failure('theirs') !== undefined, 'the failure')
  t.match(controller.failure('theirs'), { scope: 'namespace', code: 'not_managed' })
  t.strictSame(events, [
    {
      namespace: 'theirs',
      reason: 'NotManaged',
      note: 'exists but is not managed by pullpass',
    },
  ])
  t.strictSame(problems(), [])
  index.secrets.remove(theirs)
  cluster.secrets.delete('theirs')
  await until(() => index.secrets.get('theirs')?.ours === true, 'our Secret')
  t.equal(controller.failure('theirs'), undefined)
})

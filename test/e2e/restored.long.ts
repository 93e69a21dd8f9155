import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Secret } from '@kubernetes/client-node'
import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { reachEnvironment } from '../sandbox/bluemix-caller.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { secretOf, secretsOf } from './tenant.ts'

/** One interval of the list, 5 s to ask, and what a busy machine takes. */
const withinMs = 60_000
const controller = { listEverySeconds: 5, revokeGraceSeconds: 3600, mintsPerMinute: 60 }
const bluemix = { namespaceOrganizations: { failing: 'acme-data' } }
const fixture = await startFixture(t, startSandbox({ settings: { controller, bluemix } }))
const { environment, pullpass } = fixture
const caller = reachEnvironment(t, environment)
const { faults, ledger } = environment

const holds = (secret: V1Secret | undefined): string =>
  JSON.parse(Buffer.from(secret?.data?.['.dockerconfigjson'] ?? '', 'base64').toString() || '{}')
    .auths?.[environment.hosts.registry]?.password ?? ''

/** The namespace has exactly one live token, and its Secret holds it. */
async function whenRight(namespace: string): Promise<void> {
  const isRight = async () => {
    const tokens = fixture.liveTokens(namespace)
    return tokens.length === 1 && tokens[0]?.text === holds(await fixture.secret(namespace))
  }
  await waitFor(isRight, { withinMs, what: `${namespace} to hold its one live token` })
}

async function settled(namespace: string): Promise<V1Secret> {
  await fixture.namespace(namespace)
  const secret = await fixture.whenSecret(namespace)
  await whenRight(namespace)
  return secret
}

/** Revokes by hand what the namespace has. */
async function revoke(namespace: string): Promise<void> {
  for (const { id } of fixture.liveTokens(namespace)) await caller.tokens('DELETE', `/${id}`)
}

/** As a backup keeps it. */
function backupOf({ metadata, type, data }: V1Secret, namespace: string): object {
  const { name, labels, annotations } = metadata ?? {}
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace, labels, annotations },
    type,
    data,
  }
}

const restore = (namespace: string, secret: V1Secret) =>
  fixture.ask('POST', secretsOf(namespace), backupOf(secret, namespace))

/** Puts an older Secret over the one that is there. */
const replace = (namespace: string, { data }: V1Secret) =>
  fixture.ask('PATCH', secretOf(namespace), { data })

t.test('a namespace restored from a backup gets a live token', async t => {
  const backup = await settled('restored')
  await fixture.ask('DELETE', '/api/v1/namespaces/restored')
  const isGone = async () =>
    (await fixture.ask('GET', '/api/v1/namespaces/restored')).status === 404
  await waitFor(isGone, { withinMs, what: 'the namespace to go' })
  await waitFor(() => fixture.liveTokens('restored').length === 0, { withinMs, what: 'its token' })
  await fixture.namespace('restored', {})
  await restore('restored', backup)
  await fixture.label('restored', 'enabled')
  await whenRight('restored')
  t.equal(fixture.mints('restored').length, 2)
})

t.test('an older Secret over the newer one costs nobody a live token', async t => {
  const older = await settled('older')
  await revoke('older')
  await whenRight('older')
  const [newer] = fixture.liveTokens('older')
  await replace('older', older)
  await whenRight('older')
  t.equal(fixture.liveTokens('older')[0]?.id, newer?.id, 'the live token is adopted')
})

t.test('a Secret that is deleted and restored while a list is read keeps its token', async t => {
  const backup = await settled('racing')
  faults.set('list', { answerLatencyMs: 3000 })
  t.teardown(() => faults.clear())
  const lists = ledger.requests('list').length
  const isListing = () => ledger.requests('list').length > lists
  await waitFor(isListing, { withinMs, what: 'a list' })
  await fixture.ask('DELETE', secretOf('racing'))
  await restore('racing', backup)
  await waitFor(() => ledger.lists().length >= lists + 3, { withinMs, what: 'two more lists' })
  await whenRight('racing')
  t.equal(fixture.mints('racing').length, 1)
})

t.test('a copied Secret: a token of its own with the label, left alone without', async t => {
  const original = await settled('original')
  for (const name of ['copy', 'quiet-copy']) {
    await fixture.namespace(name, {})
    await restore(name, original)
  }
  await fixture.label('copy', 'enabled')
  await whenRight('copy')
  await whenRight('original')
  t.equal(holds(await fixture.secret('quiet-copy')), holds(original))
  t.equal(
    (await fixture.secret('quiet-copy'))?.metadata?.annotations?.['pullpass.io/revoke-at'],
    undefined,
  )
})

t.test('a label that flips while the list lags keeps no dead token', async t => {
  await settled('flipping')
  faults.set('list', { answerLatencyMs: 2000, lagMs: 5000 })
  t.teardown(() => faults.clear())
  for (let times = 0; times < 3; times++) {
    await fixture.label('flipping', null)
    await fixture.label('flipping', 'enabled')
  }
  await revoke('flipping')
  await whenRight('flipping')
})

t.test('a Secret deleted and its token revoked by hand: another token', async t => {
  await settled('renewed')
  await fixture.ask('DELETE', secretOf('renewed'))
  await revoke('renewed')
  await whenRight('renewed')
  t.equal(fixture.mints('renewed').length, 2)
})

t.test('a token that cannot be revoked is asked about once a list', async t => {
  await settled('stuck')
  const uid = (await fixture.secret('stuck'))?.metadata?.uid
  const [{ description } = { description: '' }] = fixture.mints('stuck')
  await caller.mint(`?permanent=true&description=${encodeURIComponent(description)}`)
  faults.set('revoke', { fail: 'error_text' })
  t.teardown(() => faults.clear())
  const tries = () => ledger.requests('revoke').length
  const [revokes, lists] = [tries(), ledger.lists().length]
  await waitFor(() => tries() >= revokes + 3, { withinMs, what: 'three tries' })
  t.ok(ledger.lists().length - lists >= 2, 'lists in between')
  t.ok(ledger.lists().length - lists <= tries() - revokes + 5)
  faults.clear()
  await whenRight('stuck')
  t.equal((await fixture.secret('stuck'))?.metadata?.uid, uid)
})

t.test('one organization that answers 500 does not keep the namespaces of others', async t => {
  for (const operation of ['mint', 'list'] as const) {
    faults.set(operation, { fail: 'error_text' }, 'acme-data')
  }
  t.teardown(() => faults.clear())
  await fixture.namespace('failing')
  const isRefused = async () => (await fixture.count('pullpass_namespaces{state="refused"}')) === 1
  await waitFor(isRefused, { withinMs, what: 'the namespace of that organization to be refused' })
  for (const name of ['beside-1', 'beside-2', 'beside-3']) {
    await fixture.namespace(name)
    const started = performance.now()
    await fixture.whenSecret(name)
    const tookMs = performance.now() - started
    t.ok(tookMs < 20_000, `${name}: ${Math.round(tookMs)} ms`)
  }
  t.equal(fixture.mints('failing').length, 0)
  faults.clear()
  await whenRight('failing')
})

t.test(
  'where lists are unsupported and the answers to mints are lost, three are minted',
  async t => {
    faults.set('list', { fail: 'unsupported' })
    const lists = ledger.requests('list').length
    await waitFor(() => ledger.requests('list').length > lists + 1, { withinMs, what: 'no list' })
    faults.set('mint', { fail: 'reset', when: 'after' })
    t.teardown(() => faults.clear())
    await fixture.namespace('lost')
    await waitFor(() => fixture.mints('lost').length === 3, { withinMs, what: 'three mints' })
    const isLimited = () =>
      pullpass.lines('no pull secret: the pull secret is changed too often').length > 0 ||
      /"namespace":"lost","code":"too_many_changes"/.test(pullpass.output())
    await waitFor(isLimited, { withinMs, what: 'the limit to be reported' })
    t.equal(fixture.mints('lost').length, 3)
  },
)

t.test('a controller that writes a dead token back costs few requests in 20 s', async t => {
  faults.clear()
  const old = await settled('fight')
  await revoke('fight')
  await whenRight('fight')
  const own = () => ledger.requests().filter(({ operation }) => operation !== 'list').length
  const [lists, before, started] = [ledger.requests('list').length, own(), performance.now()]
  while (performance.now() < started + 20_000) {
    if (holds(await fixture.secret('fight')) !== holds(old)) await replace('fight', old)
    await sleep(20)
  }
  const [asked, listed] = [own() - before, ledger.requests('list').length - lists]
  t.comment(`${asked} requests and ${listed} lists`)
  t.ok(asked <= 40, `${asked} requests`)
  t.ok(listed <= 12, `${listed} lists`)
  t.ok(fixture.mints('fight').length <= 3)
  await whenRight('fight')
})

t.test('while 400 wait for the limit of mints, a Secret that needs none comes back', async t => {
  faults.clear()
  await settled('needs-none')
  const names = Array.from({ length: 400 }, (_, index) => `many-${index}`)
  await Promise.all(names.map(name => fixture.namespace(name)))
  await waitFor(() => names.some(name => fixture.mints(name).length > 0), {
    withinMs,
    what: 'mints',
  })
  const before = await fixture.secret('needs-none')
  await fixture.ask('DELETE', secretOf('needs-none'))
  const started = performance.now()
  await fixture.whenSecret('needs-none', ({ metadata }) => metadata?.uid !== before?.metadata?.uid)
  t.ok(performance.now() - started < 15_000)
  t.ok(
    names.some(name => fixture.mints(name).length === 0),
    'others wait',
  )
})

testInvariants(t, fixture, ['quiet-copy'])

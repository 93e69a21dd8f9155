import type { EventsV1EventList, V1Secret } from '@kubernetes/client-node'
import t from 'tap'
import { namespaceOf } from '../../sandbox/descriptions.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { notManaged } from '../../src/pull-secret/pull-secret.ts'
import { notReady } from '../../src/webhook/await-secret.ts'
import { optedIn } from './cluster.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { pod, references } from './pods.ts'

const settings = {
  controller: { revokeGraceSeconds: 3 },
  // A killed leader is replaced after its Lease expires.
  leader: { leaseSeconds: 4, renewSeconds: 1 },
}
const fixture = await startFixture(t, startSandbox({ settings }))
const { environment, pullpass } = fixture
const secrets = (namespace: string) => `/api/v1/namespaces/${namespace}/secrets`
const tokenId = ({ metadata }: V1Secret) => metadata?.annotations?.['pullpass.io/token-id']
const isMarked = ({ metadata }: V1Secret) =>
  metadata?.annotations?.['pullpass.io/revoke-at'] !== undefined

/** A namespace with its pull secret. */
async function settled(namespace: string): Promise<V1Secret> {
  await fixture.namespace(namespace)
  return fixture.whenSecret(namespace)
}

// These take longest to disappear, so they are started first and checked last.
await settled('leaving')
await settled('doomed')
await fixture.label('leaving', null)
await fixture.ask('DELETE', '/api/v1/namespaces/doomed')

t.test('a Secret of somebody else with our name is not changed, but reported', async t => {
  const data = { '.dockerconfigjson': Buffer.from('{"auths":{}}').toString('base64') }
  const type = 'kubernetes.io/dockerconfigjson'
  const metadata = { name: 'pullpass-registry' }
  await fixture.namespace('theirs', {})
  await fixture.ask('POST', secrets('theirs'), { metadata, type, data })
  const before = await fixture.secret('theirs')
  await fixture.label('theirs', 'enabled')
  const isReported = async () =>
    (await fixture.count('pullpass_namespaces{state="not_managed"}')) === 1
  await waitFor(isReported, { withinMs: 10_000, what: 'the metric to count it' })
  const { status, body, warnings } = await fixture.create('theirs', pod('mypod'))
  t.same([status, references(body)], [201, ['pullpass-registry']])
  t.same(warnings, [`pull secret pullpass-registry: ${notManaged}`])
  const lines = pullpass.lines(`cannot update the pull secret: ${notManaged}`)
  t.same(
    lines.map(line => line.namespace),
    ['theirs'],
  )
  const isShown = async () => {
    const { stdout } = await fixture.kubectl('get events -n theirs')
    return stdout.includes(notManaged)
  }
  await waitFor(isShown, { withinMs: 10_000, what: 'the event in the namespace' })
  await fixture.label('theirs', null)
  await fixture.label('theirs', 'enabled')
  await settled('after-theirs')
  t.same(await fixture.secret('theirs'), before, 'byte for byte')
  t.same(fixture.mints('theirs'), [])
})

t.test('when an unmanaged Secret is deleted, pullpass creates its own', async t => {
  await fixture.ask('DELETE', `${secrets('theirs')}/pullpass-registry`)
  await fixture.whenSecret('theirs')
  t.equal(fixture.liveTokens('theirs').length, 1)
})

t.test('a pull secret that was edited by hand is restored, and keeps its labels', async t => {
  const before = await settled('edited')
  const data = { '.dockerconfigjson': Buffer.from('{"auths":{}}').toString('base64') }
  const labels = { team: 'a' }
  const edit = { data, metadata: { labels, annotations: { note: 'mine' } } }
  await fixture.ask('PATCH', `${secrets('edited')}/pullpass-registry`, edit)
  const isRight = (secret: V1Secret) =>
    secret.data?.['.dockerconfigjson'] === before.data?.['.dockerconfigjson']
  const after = await fixture.whenSecret('edited', isRight)
  t.match(after.metadata, { labels: { ...before.metadata?.labels, ...labels } })
  t.match(after.metadata?.annotations, { note: 'mine', 'pullpass.io/token-id': tokenId(before) })
  t.equal(after.metadata?.uid, before.metadata?.uid, 'in place')
  t.equal(fixture.mints('edited').length, 1)
})

t.test('a deleted pull secret is created again with the same token', async t => {
  const before = await settled('deleted')
  await fixture.ask('DELETE', `${secrets('deleted')}/pullpass-registry`)
  const after = await fixture.whenSecret(
    'deleted',
    ({ metadata }) => metadata?.uid !== before.metadata?.uid,
  )
  t.equal(tokenId(after), tokenId(before))
  t.same([fixture.mints('deleted').length, fixture.liveTokens('deleted').length], [1, 1])
})

t.test('a Secret of ours that lost our label gets it back', async t => {
  const before = await settled('disowned')
  const path = `${secrets('disowned')}/pullpass-registry`
  await fixture.ask('PATCH', path, { metadata: { labels: { 'pullpass.io/pull-secret': null } } })
  const after = await fixture.whenSecret(
    'disowned',
    ({ metadata }) => metadata?.labels?.['pullpass.io/pull-secret'] === 'true',
  )
  t.equal(tokenId(after), tokenId(before))
  t.same([fixture.mints('disowned').length, fixture.liveTokens('disowned').length], [1, 1])
})

t.test('a label that another controller sets is not forced, but reported as a fight', async t => {
  await settled('fight')
  const path = `${secrets('fight')}/pullpass-registry`
  const metadata = { labels: { 'pullpass.io/pull-secret': 'mine' } }
  const { body } = await fixture.ask<V1Secret>('PATCH', path, { metadata })
  const events = '/apis/events.k8s.io/v1/namespaces/fight/events'
  const isReported = async () => {
    const { items } = (await fixture.ask<EventsV1EventList>('GET', events)).body
    return items.some(
      ({ reason, note }) => reason === 'Contested' && /another value/.test(note ?? ''),
    )
  }
  await waitFor(isReported, { withinMs: 10_000, what: 'the event' })
  t.equal(await fixture.count('pullpass_namespaces{state="not_managed"}'), 1)
  await settled('after-fight')
  t.same(await fixture.secret('fight'), body)
})

t.test('a namespace that is labelled again within the grace keeps Secret and token', async t => {
  const before = await settled('back')
  await fixture.label('back', null)
  await fixture.whenSecret('back', isMarked)
  await fixture.label('back', 'enabled')
  const after = await fixture.whenSecret('back', secret => !isMarked(secret))
  t.equal(tokenId(after), tokenId(before))
  t.same([fixture.mints('back').length, fixture.liveTokens('back').length], [1, 1])
})

t.test('a namespace without the label loses Secret and token after the grace', async t => {
  await fixture.whenNoSecret('leaving')
  const revoked = () => fixture.liveTokens('leaving').length === 0
  await waitFor(revoked, { withinMs: 30_000, what: 'its token to be revoked' })
  t.equal(fixture.mints('leaving').length, 1)
  const { body, warnings } = await fixture.create('leaving', pod('mypod'))
  t.same([references(body), warnings], [[], []])
})

t.test('the token of a namespace that was deleted is revoked', async t => {
  const revoked = () => fixture.liveTokens('doomed').length === 0
  await waitFor(revoked, { withinMs: 60_000, what: 'its token to be revoked' })
  t.equal(fixture.mints('doomed').length, 1)
})

t.test('a later namespace with the same name gets its own token', async t => {
  const isGone = async () => (await fixture.ask('GET', '/api/v1/namespaces/doomed')).status === 404
  await waitFor(isGone, { withinMs: 60_000, what: 'the namespace to go' })
  await fixture.namespace('doomed', optedIn)
  await fixture.whenSecret('doomed')
  t.same([fixture.mints('doomed').length, fixture.liveTokens('doomed').length], [2, 1])
})

t.test('no other namespace lost a token', async t => {
  const revoked = environment.ledger.revokes().map(({ description }) => description.split('/')[2])
  const left = revoked.filter(name => name && !['leaving', 'doomed'].includes(name))
  t.same(left, [])
})

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

testInvariants(t, fixture, ['theirs', 'fight'])

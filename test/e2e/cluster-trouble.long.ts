import t from 'tap'
import type { ProxiedRequest } from '../../sandbox/fault-proxy.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { notManaged } from '../../src/pull-secret/pull-secret.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { elsewhere, pod, reference, references, reviewOf } from './pods.ts'
import { startProxiedSandbox } from './proxied-sandbox.ts'

const shutdown = { drainMs: 2000 }
const sandbox = await startProxiedSandbox({ settings: { shutdown } })
const fixture = await startFixture(t, Promise.resolve(sandbox))
const { proxy } = sandbox
const { environment, pullpass, webhook } = fixture
const patch = [{ op: 'add', path: '/spec/imagePullSecrets', value: [reference] }]

/** Requests that a review could cause: not those for watches, Lease and certificate, which occur all the time. */
const caused = ({ path }: ProxiedRequest) => !/watch=true|\/leases|pullpass-ca|webhook/.test(path)
const asked = () => proxy.requests.filter(caused).map(({ method, path }) => `${method} ${path}`)
/** Requests to the environment, without the lists that come all the time. */
const requested = () =>
  environment.ledger.requests().filter(({ operation }) => operation !== 'list').length
const about = (namespace: string) => asked().filter(path => path.includes(`/${namespace}`))

await fixture.namespace('warm')
await fixture.namespace('quiet', {})
await fixture.whenSecret('warm')

t.test('a review in a known namespace causes no request of pullpass', async t => {
  await fixture.create('warm', pod('before'))
  const before = [asked(), requested()]
  const reviews = Array.from({ length: 200 }, (_, index) =>
    webhook.post(reviewOf('warm', pod(`pod-${index}`))),
  )
  const pods = Array.from({ length: 20 }, (_, index) =>
    fixture.create('warm', pod(`real-${index}`)),
  )
  t.ok((await Promise.all(pods)).every(({ body }) => references(body).length === 1))
  t.same(
    (await Promise.all(reviews)).map(({ response }) => response?.patch),
    Array(200).fill(patch),
  )
  t.same([asked(), requested()], before)
})

t.test('a pod without images of the registry causes no request of pullpass', async t => {
  const before = asked()
  const other = pod('other', { containers: [{ name: 'main', image: elsewhere }] })
  await Promise.all(['warm', 'quiet', 'none'].map(name => webhook.post(reviewOf(name, other))))
  t.same(asked(), before)
})

t.test('a forged review for an unlabelled namespace causes no write and no mint', async t => {
  for (const namespace of ['quiet', 'quiet', 'quiet', 'no-such-namespace']) {
    for (const dryRun of [false, true]) {
      const { status, response } = await webhook.post(reviewOf(namespace, pod('a'), { dryRun }))
      t.same([status, response?.allowed, response?.patch], [200, true, undefined])
      t.same(response?.warnings, undefined)
    }
  }
  // When another namespace is complete, the effects of the earlier review are complete too.
  await fixture.namespace('honest')
  await fixture.whenSecret('honest')
  t.same([await fixture.secret('quiet'), fixture.mints('quiet')], [undefined, []])
  const reads = [...about('quiet'), ...about('no-such-namespace')]
  t.same(new Set(reads.map(path => path.split(' ')[0])), new Set(['GET']))
  t.ok(reads.length <= 4, `${reads.length} reads: a second's answers are remembered`)
})

t.test('a Secret that cannot be written is tried again with back-off', async t => {
  const tries: number[] = []
  const isWrite = ({ method, path }: ProxiedRequest) =>
    method === 'PATCH' && path.includes('/failing/secrets/')
  const noted = (request: ProxiedRequest) => {
    if (isWrite(request)) tries.push(performance.now())
  }
  proxy.hooks.before = noted
  const heal = proxy.fault(isWrite, { status: 500, body: { kind: 'Status', code: 500 } })
  t.teardown(heal)
  await fixture.namespace('failing')
  const { warnings } = await fixture.create('failing', pod('mypod'))
  t.match(warnings, [/^pull secret pullpass-registry: cannot apply Secret failing\/pullpass-reg/])
  await waitFor(() => tries.length >= 4, { withinMs: 60_000, what: 'four tries' })
  const tookMs = (tries.at(-1) ?? 0) - (tries[0] ?? 0)
  t.ok(tookMs / (tries.length - 1) > 200, `${tries.length} tries in ${Math.round(tookMs)} ms`)
  heal()
  await fixture.whenSecret('failing', undefined, 40_000)
  t.same([fixture.mints('failing').length, fixture.liveTokens('failing').length], [1, 1])
  t.equal((await pullpass.readyz()).ready, true)
})

t.test('an overloaded API server is asked again after its Retry-After', async t => {
  const isWrite = ({ method, path }: ProxiedRequest) =>
    method === 'PATCH' && path.includes('/limited/secrets/')
  const answer = { status: 429, headers: { 'retry-after': '1' }, body: { kind: 'Status' } }
  proxy.fault(isWrite, answer, 2)
  await fixture.namespace('limited')
  await fixture.whenSecret('limited')
  t.equal(fixture.mints('limited').length, 1)
})

t.test('a write with a lost response is not repeated and causes no second mint', async t => {
  const isWrite = ({ method, path }: ProxiedRequest) =>
    method === 'PATCH' && path.includes('/unheard/secrets/') && !path.includes('dryRun')
  proxy.hooks.after = request => {
    if (isWrite(request)) proxy.reset()
  }
  await fixture.namespace('unheard')
  await fixture.whenSecret('unheard')
  delete proxy.hooks.after
  await fixture.namespace('after-unheard')
  await fixture.whenSecret('after-unheard')
  t.same([fixture.mints('unheard').length, fixture.liveTokens('unheard').length], [1, 1])
})

t.test('an unmanaged Secret that no watch reported is not overwritten', async t => {
  const isWatch = ({ path }: ProxiedRequest) => path.startsWith('/api/v1/secrets?')
  t.teardown(proxy.fault(isWatch, 'reset'))
  proxy.reset()
  await fixture.namespace('theirs', {})
  const theirs = {
    metadata: { name: 'pullpass-registry' },
    type: 'kubernetes.io/dockerconfigjson',
    data: { '.dockerconfigjson': Buffer.from('{"auths":{}}').toString('base64') },
  }
  const { body } = await fixture.ask('POST', '/api/v1/namespaces/theirs/secrets', theirs)
  await fixture.label('theirs', 'enabled')
  const sentence = `cannot update the pull secret: ${notManaged}`
  const isReported = () => pullpass.lines(sentence).some(line => line.namespace === 'theirs')
  await waitFor(isReported, { withinMs: 20_000, what: 'the report of the conflict' })
  const { warnings } = await fixture.create('theirs', pod('mypod'))
  t.same(warnings, [`pull secret pullpass-registry: ${notManaged}`])
  t.same(await fixture.secret('theirs'), body, 'byte for byte')
  t.same(fixture.mints('theirs'), [], 'no token is minted that could not be stored')
})

t.test('watches that are cut or fail start again and miss nothing', async t => {
  const gone = { type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired' } }
  const isWatch = ({ path }: ProxiedRequest) => /namespaces\?.*watch=true/.test(path)
  const isInjected = () => proxy.inject(isWatch, gone) > 0
  const troubles: [name: string, trouble: () => unknown][] = [
    ['cut', () => proxy.reset()],
    ['gone', () => waitFor(isInjected, { withinMs: 10_000, what: 'a watch to be open' })],
    ['refused', () => proxy.fault(({ path }) => path.includes('watch=true'), 'reset', 3)],
  ]
  for (const [name, trouble] of troubles) {
    await trouble()
    await fixture.namespace(`after-${name}`)
    const { status, body } = await fixture.create(`after-${name}`, pod('mypod'))
    t.same([status, references(body)], [201, ['pullpass-registry']], name)
    await fixture.whenSecret(`after-${name}`)
  }
})

t.test('a new namespace gets its Secret after the API server restarted', async t => {
  await sandbox.controlPlane.restart()
  await fixture.namespace('after-restart')
  await fixture.whenSecret('after-restart', undefined, 40_000)
  const isSent = async () => (await fixture.create('after-restart', pod('mypod'))).status === 201
  await waitFor(isSent, { withinMs: 20_000, what: 'pods to be created again' })
  t.equal((await pullpass.readyz()).ready, true)
  t.ok(pullpass.process().running())
})

t.test('pods get the reference while pullpass cannot reach the API server', async t => {
  await proxy.down()
  const warm = await fixture.create('warm', pod('while-away'))
  await fixture.namespace('while-away')
  const cold = await fixture.create('while-away', pod('while-away'))
  t.same([warm.status, references(warm.body), warm.warnings], [201, ['pullpass-registry'], []])
  t.same([cold.status, references(cold.body)], [201, ['pullpass-registry']])
  t.equal(cold.warnings.length, 1)
  await proxy.up()
  await fixture.whenSecret('while-away', undefined, 60_000)
})

t.test('a replica that ends under load interrupts no admission call', async t => {
  environment.faults.set('mint', { latencyMs: 20_000 })
  await fixture.namespace('waiting')
  let loading = true
  const results: [number, string | undefined][] = []
  const load = async (worker: number) => {
    for (let index = 0; loading; index++) {
      const { status, body } = await fixture.create('warm', pod(`load-${worker}-${index}`))
      results.push([status, body.message ?? references(body)[0]])
    }
  }
  const workers = Array.from({ length: 8 }, (_, worker) => load(worker))
  await waitFor(() => results.length > 50, { withinMs: 30_000, what: 'the load' })
  pullpass.process().signal('SIGTERM')
  const isUnready = async () => (await pullpass.readyz()).status === 503
  await waitFor(isUnready, { withinMs: 2000, what: 'it to be unready' })
  t.match((await pullpass.readyz()).problems, ['shutting down'])
  const begun = results.length
  const held = await webhook.post(reviewOf('warm', pod('held')))
  t.match(held, { status: 200, headers: { connection: 'close' }, response: { patch } })
  const [draining] = pullpass.lines('draining')
  const end = Number(draining?.time) + shutdown.drainMs
  const isLate = () => Date.now() > end - 1000
  await waitFor(isLate, { withinMs: shutdown.drainMs, what: 'half of the drain time to go by' })
  // It waits longer than the drain time, and is still answered.
  const late = webhook.post(reviewOf('waiting', pod('late')))
  loading = false
  await Promise.all(workers)
  t.ok(results.length > begun, 'pods were created while it drained')
  t.match(await late, { status: 200, response: { patch } })
  t.ok(Date.now() > end)
  t.same(
    results.filter(([status, said]) => status !== 201 || said !== 'pullpass-registry'),
    [],
    `all of ${results.length} pods were created and injected`,
  )
  t.match(await pullpass.process().ended, { code: 0 })
  t.equal(pullpass.lines('stopped').length, 1)
})

t.test('a starting replica is not ready, and asks the API server to retry', async t => {
  environment.faults.clear()
  const isList = ({ path }: ProxiedRequest) => path.startsWith('/api/v1/secrets?')
  const heal = proxy.fault(isList, 'reset')
  t.teardown(heal)
  const restarted = pullpass.restart()
  const answers = async () => (await webhook.post('{}').catch(() => undefined)) !== undefined
  await waitFor(answers, { withinMs: 20_000, what: 'the port to answer' })
  const { status, headers, text } = await webhook.post(reviewOf('warm', pod('early')))
  t.match(headers, { 'retry-after': '1', connection: 'close' })
  t.same([status, text], [503, 'pullpass is not ready yet\n'])
  const { status: ready, problems } = await pullpass.readyz()
  t.same([ready, problems], [503, ['the first lists have not arrived yet']])
  heal()
  await restarted
  const { body } = await fixture.create('warm', pod('on-time'))
  t.same(references(body), ['pullpass-registry'])
  await fixture.whenSecret('waiting')
  t.equal(fixture.liveTokens('waiting').length, 1)
})

testInvariants(t, fixture, ['theirs'])

import t from 'tap'
import { namespaceOf } from '../../sandbox/descriptions.ts'
import type { Answer, FaultProxy, Match } from '../../sandbox/fault-proxy.ts'
import { kubectl } from '../../sandbox/install.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { startReplicas } from '../../sandbox/replicas.ts'
import { reachCheckedCluster } from './checked-cluster.ts'
import { pod, references } from './pods.ts'

const graceSeconds = 8
const replicas = await startReplicas({
  count: 3,
  proxied: true,
  settings: {
    // Without the release of the Lease, the others would wait much longer.
    leader: { leaseSeconds: 15, renewSeconds: 1 },
    controller: { concurrency: 16, mintsPerMinute: 600, revokeGraceSeconds: graceSeconds },
  },
})
t.teardown(replicas.stop)
const { environment, all } = replicas
const { faults, ledger } = environment
const cluster = await reachCheckedCluster(t, replicas)
// On a busy machine, 250 pods at once can take longer than the limit of the chart.
await kubectl(
  replicas.controlPlane,
  ...['patch', 'mutatingwebhookconfiguration', 'pullpass', '--type=json', '--patch'],
  JSON.stringify([{ op: 'replace', path: '/webhooks/0/timeoutSeconds', value: 30 }]),
)

const named = (prefix: string, length: number) =>
  Array.from({ length }, (_, index) => `${prefix}-${index}`)
const proxies = all.flatMap(({ proxy }) => proxy ?? [])
const lines = (message: string) => all.flatMap(({ pullpass }) => pullpass.lines(message))

t.test('250 pods in 50 namespaces share 50 tokens while the environment fails', async t => {
  const fails = { fail: 'unavailable', probability: 0.2 } as const
  faults.set('*', { ...fails, seed: 11 })
  // A fifth of the mints is done, but the answer gets lost.
  faults.set('mint', {
    latencyMs: 3000,
    fail: 'reset',
    when: 'after',
    probability: 0.2,
    seed: 12,
  })
  t.teardown(() => faults.clear())
  const namespaces = named('rush', 50)
  const created = await Promise.all(
    namespaces.map(async name => {
      await cluster.namespace(name)
      return Promise.all([1, 2, 3, 4, 5].map(index => cluster.create(name, pod(`pod-${index}`))))
    }),
  )
  t.same(
    created.flat().map(({ status, body }) => [status, body.message ?? references(body)]),
    Array(250).fill([201, ['pullpass-registry']]),
  )
  for (const name of namespaces) await cluster.whenRight(name, 90_000)
  t.same(namespaces.map(cluster.mints), Array(50).fill(1), 'none was minted twice')
  t.equal(ledger.liveTokens().filter(namespaceOf).length, 50)
  t.equal(ledger.maxLoginsInFlight(), 1)
  const lost = ledger.requests('mint').filter(({ status }) => status === undefined)
  t.ok(lost.length > 0, `${lost.length} answers to mints were lost`)
})

t.test('a leader that is stopped hands over at once, and no token is minted twice', async t => {
  const leader = await replicas.whenLed()
  const namespaces = named('handed-over', 20)
  const labelled = Promise.all(namespaces.map(name => cluster.namespace(name)))
  const minted = () => ledger.mints().filter(namespaceOf).length
  await waitFor(() => minted() >= 55, { withinMs: 20_000, what: 'five mints' })
  leader.pullpass.process().signal('SIGTERM')
  const signalledAt = performance.now()
  await replicas.whenLed([leader])
  const ms = Math.round(performance.now() - signalledAt)
  t.comment(`another led after ${ms} ms`)
  t.ok(ms < 5000, 'long before the lease of 15 s was over')
  await labelled
  for (const name of namespaces) await cluster.whenRight(name)
  t.same(namespaces.map(cluster.mints), Array(20).fill(1))
  await leader.pullpass.process().ended
  await leader.restart()
})

t.test('the token of a deleted namespace is revoked within 30 s', async t => {
  const started = performance.now()
  await cluster.ask('DELETE', '/api/v1/namespaces/rush-0')
  await cluster.whenNothingIsLeft('rush-0', 30_000)
  t.comment(`revoked after ${Math.round(performance.now() - started)} ms`)
})

t.test('an unlabelled namespace keeps Secret and token for the grace only', async t => {
  const started = performance.now()
  await cluster.label('rush-1', null)
  const note = 'pullpass.io/revoke-at'
  const marked = await cluster.whenSecret(
    'rush-1',
    ({ metadata }) => metadata?.annotations?.[note] !== undefined,
  )
  const stays = Date.parse(marked.metadata?.annotations?.[note] ?? '') - Date.now()
  t.ok(stays > 0 && stays <= graceSeconds * 1000, 'it is noted when it goes')
  t.equal(await cluster.wrong('rush-1'), undefined, 'until then the credential works')
  await cluster.whenNothingIsLeft('rush-1', 40_000)
  t.ok(performance.now() - started > graceSeconds * 1000)
})

t.test('an empty list of namespaces causes no removal', async t => {
  const isList: Match = ({ method, path }) =>
    method === 'GET' && path.startsWith('/api/v1/namespaces?') && !path.includes('watch=')
  const empty = ({ status, body }: Answer) => ({
    status,
    body: { ...JSON.parse(String(body)), items: [] },
  })
  const undo = proxies.map(proxy => proxy.fault(isList, empty))
  // A new leader revokes the mark of the one before.
  const revoked = () => ledger.revokes().filter(namespaceOf).length
  const revokedBefore = revoked()
  const { body } = await cluster.ask<{ items: object[] }>('GET', '/api/v1/namespaces')
  for (const proxy of proxies) sendDeleted(proxy, body.items)
  await waitFor(() => lines('synced again').filter(({ items }) => items === 0).length >= 3, {
    withinMs: 20_000,
    what: 'each replica to believe in an empty list',
  })
  const leader = await replicas.whenLed()
  const looks = () =>
    proxies.flatMap(({ requests }) =>
      requests.filter(({ path }) => path === '/api/v1/namespaces/rush-9'),
    ).length
  await waitFor(() => looks() > 0, { withinMs: 20_000, what: 'the leader to look for itself' })
  const before = looks()
  await leader.kill()
  await replicas.whenLed([leader])
  await waitFor(() => looks() > before, { withinMs: 20_000, what: 'the next one to do so' })
  t.equal(revoked(), revokedBefore, 'nothing was revoked')
  const wrong = await Promise.all(named('rush', 50).slice(2).map(cluster.wrong))
  t.same(wrong, Array(48).fill(undefined), 'each Secret holds the live token of its namespace')
  const secret = await cluster.secret('rush-9')
  t.notOk(secret?.metadata?.annotations?.['pullpass.io/revoke-at'], 'nothing is about to go')
  for (const stop of undo) stop()
  await leader.restart()
})

t.test('an environment that cannot list tokens is reported once, and works', async t => {
  faults.set('list', { fail: 'unsupported' })
  t.teardown(() => faults.clear())
  const namespaces = named('unlisted', 3)
  for (const name of namespaces) await cluster.namespace(name)
  for (const name of namespaces) await cluster.whenRight(name)
  await cluster.ask('DELETE', '/api/v1/namespaces/unlisted-0')
  // Without lists, a minute stands for one.
  await cluster.whenNothingIsLeft('unlisted-0', 120_000)
  const { pullpass } = await replicas.whenLed()
  t.equal(await pullpass.metric('pullpass_environment_cannot_list'), 1)
  t.equal(lines('the environment cannot list tokens: lost ones are not found again').length, 1)
})

/** The watch of namespaces reports each one as deleted, and then that the watch must start again. */
function sendDeleted(proxy: FaultProxy, namespaces: object[]): void {
  const isWatch: Match = ({ path }) =>
    path.startsWith('/api/v1/namespaces?') && path.includes('watch=')
  for (const object of namespaces) proxy.inject(isWatch, { type: 'DELETED', object })
  const expired = { kind: 'Status', status: 'Failure', reason: 'Expired', code: 410 }
  proxy.inject(isWatch, { type: 'ERROR', object: expired })
}

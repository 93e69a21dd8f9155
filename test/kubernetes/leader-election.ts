import { setTimeout as sleep } from 'node:timers/promises'
import { KubeConfig } from '@kubernetes/client-node'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { startFaultProxy } from '../../sandbox/fault-proxy.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { createKubernetesClient } from '../../src/kubernetes/client.ts'
import { createLeader } from '../../src/kubernetes/leader-election.ts'
import {
  createLeaseAnnotation,
  mayTake,
  observe,
  released,
  takenBy,
} from '../../src/kubernetes/lease.ts'
import { sharedControlPlane } from './control-plane.ts'

t.test('a Lease can be taken if it is free, expired or already held', async t => {
  const since = 1000
  const held = (holderIdentity?: string, leaseDurationSeconds = 15) => ({
    spec: { ...(holderIdentity !== undefined && { holderIdentity }), leaseDurationSeconds },
    since,
  })
  const rows: [string, ReturnType<typeof held>, number, boolean][] = [
    ['never held', held(), since, true],
    ['released', held(''), since, true],
    ['our own', held('me'), since, true],
    ["another's, just seen", held('other'), since, false],
    ["another's, not yet over", held('other'), since + 14_999, false],
    ["another's, over", held('other'), since + 15_000, true],
    ["another's own duration counts", held('other', 60), since + 15_000, false],
  ]
  for (const [name, observation, now, expected] of rows) {
    t.equal(mayTake(observation, 'me', now), expected, name)
  }
  const first = observe(undefined, { holderIdentity: 'other', leaseTransitions: 1 }, 5)
  t.equal(observe(first, { holderIdentity: 'other', leaseTransitions: 1 }, 9).since, 5)
  t.equal(observe(first, { holderIdentity: 'other', leaseTransitions: 2 }, 9).since, 9)
})

t.test('a Lease is written with its holder, times and transitions', async t => {
  const at = (second: number) => ({
    leaseSeconds: 15,
    wallClock: new Date(Date.UTC(2026, 0, 2, 3, 4, second, 678)),
  })
  const first = takenBy('me', undefined, at(5))
  t.match(JSON.parse(JSON.stringify(first)), {
    holderIdentity: 'me',
    leaseDurationSeconds: 15,
    acquireTime: '2026-01-02T03:04:05.678000Z',
    renewTime: '2026-01-02T03:04:05.678000Z',
    leaseTransitions: 0,
  })
  const renewed = takenBy('me', first, at(6))
  t.equal(renewed.acquireTime, first.acquireTime)
  t.equal(renewed.leaseTransitions, 0)
  const free = released(renewed, at(7).wallClock)
  t.match(free, { holderIdentity: '', leaseDurationSeconds: 1, leaseTransitions: 0 })
  const taken = takenBy('other', free, at(8))
  t.match(taken, { holderIdentity: 'other', leaseTransitions: 1, acquireTime: taken.renewTime })
})

t.test('leader election works with a real API server', async t => {
  const plane = await sharedControlPlane()
  const admin = createKubernetesClient({ kubeConfig: plane.kubeConfig() }, { timeoutMs: 10_000 })
  t.teardown(() => admin.close())
  const lease = (name: string) =>
    admin.coordination.readNamespacedLease({ namespace: 'default', name })

  /** A candidate with its own proxy to the API server and its own clock. */
  async function candidate(t: Test, name: string, identity: string, timing = {}) {
    const proxy = await startFaultProxy(plane)
    const kubeConfig = new KubeConfig()
    kubeConfig.loadFromString(proxy.kubeconfig(plane.kubeConfig()))
    const client = createKubernetesClient({ kubeConfig }, { timeoutMs: 5_000 })
    const metrics = new Registry()
    const log: { msg: string; error?: string }[] = []
    const clock = { ahead: 0 }
    const leader = createLeader(
      {
        client,
        logger: pino({}, { write: line => log.push(JSON.parse(line)) }),
        metrics,
        now: () => performance.now() + clock.ahead,
      },
      { namespace: 'default', name, identity, leaseSeconds: 3, renewSeconds: 0.5, ...timing },
    )
    const changes: boolean[] = []
    leader.onChange(leading => changes.push(leading))
    t.teardown(async () => {
      await leader.release()
      await client.close()
      await proxy.stop()
    })
    const leads = (withinMs = 10_000) =>
      waitFor(leader.leading, { withinMs, what: `${identity} to lead` })
    const leadsNot = () =>
      waitFor(() => !leader.leading(), { withinMs: 10_000, what: `${identity} not to lead` })
    return { proxy, leader, metrics, log, clock, changes, leads, leadsNot }
  }

  t.test('one of two candidates leads, and the other takes over after a release', async t => {
    const a = await candidate(t, 'two', 'a')
    const b = await candidate(t, 'two', 'b')
    t.equal(a.leader.leading(), false)
    a.leader.start()
    await a.leads()
    b.leader.start()
    await sleep(1_000)
    t.equal(b.leader.leading(), false)
    t.match(await a.metrics.metrics(), /^pullpass_leader 1$/m)
    t.match(await b.metrics.metrics(), /^pullpass_leader 0$/m)
    t.match((await lease('two')).spec, {
      holderIdentity: 'a',
      leaseDurationSeconds: 3,
      leaseTransitions: 0,
      renewTime: /^[-0-9]{10}T[:0-9]{8}\.\d{6}Z$/,
    })
    const released = a.leader.release()
    t.equal(a.leader.leading(), false, 'before the lease is given back')
    await released
    await b.leads(1_000)
    t.match((await lease('two')).spec, { holderIdentity: 'b', leaseTransitions: 1 })
    t.same([a.changes, b.changes], [[true, false], [true]])
  })

  t.test('what the leader annotates, another replica reads within about a second', async t => {
    const a = await candidate(t, 'notes', 'a', { leaseSeconds: 30, renewSeconds: 10 })
    const b = await candidate(t, 'notes', 'b', { leaseSeconds: 30, renewSeconds: 10 })
    a.leader.annotate('example.com/note', 'early')
    a.leader.start()
    await a.leads()
    const read: (string | undefined)[] = []
    b.leader.onAnnotations(annotations => read.push(annotations['example.com/note']))
    b.leader.annotate('example.com/note', 'of no holder')
    b.leader.start()
    const isRead = (text?: string) => () => read.length > 0 && read.at(-1) === text
    await waitFor(isRead('early'), { withinMs: 5000, what: 'the first text' })
    a.leader.annotate('example.com/note', 'late')
    await waitFor(isRead('late'), { withinMs: 5000, what: 'the text that follows' })
    a.leader.annotate('example.com/note', undefined)
    await waitFor(isRead(undefined), { withinMs: 5000, what: 'no text' })
    t.notOk(read.includes('of no holder'))
    t.same([a.changes, b.changes], [[true], []])
  })

  t.test('an annotation is written over the state that was read, and over no other', async t => {
    const a = await candidate(t, 'shared', 'a', { renewSeconds: 0.01 })
    a.leader.start()
    await a.leads()
    const note = () =>
      createLeaseAnnotation(
        { client: admin },
        { namespace: 'default', name: 'shared', annotation: 'example.com/shared' },
      )
    const [one, other] = [note(), note()]
    t.same([await one.read(), await other.read()], [undefined, undefined])
    await one.write('1')
    await t.rejects(other.write('2'), { status: 409, message: /another process has changed/ })
    t.equal(await other.read(), '1')
    // Renewals in between are no change of the annotation.
    for (let round = 2; round < 12; round++) await other.write(String(round))
    t.equal(await one.read(), '11')
    t.same(a.changes, [true])
  })

  t.test('a dead leader is replaced after its Lease expires, and not earlier', async t => {
    const a = await candidate(t, 'gone', 'a')
    const b = await candidate(t, 'gone', 'b')
    a.leader.start()
    await a.leads()
    b.leader.start()
    await sleep(700)
    const both = setInterval(() => {
      if (a.leader.leading() && b.leader.leading()) t.fail('two lead')
    }, 1)
    t.teardown(() => clearInterval(both))
    const began = performance.now()
    await a.proxy.down()
    await b.leads()
    const tookMs = performance.now() - began
    t.ok(tookMs > 2_400 && tookMs < 5_000, `${Math.round(tookMs)} ms`)
    t.same(a.changes, [true, false], 'the clock alone ends the lead')
    await a.proxy.up()
    await sleep(1_500)
    t.same(a.changes, [true, false])
    const complaints = a.log.flatMap(line => line.error ?? [])
    t.ok(complaints.length > 0)
    t.equal(new Set(complaints).size, complaints.length, 'each lastError once')
  })

  t.test('a process that was suspended for long knows that it does not lead', async t => {
    const a = await candidate(t, 'stopped', 'a')
    a.leader.start()
    await a.leads()
    a.clock.ahead += 60_000
    t.equal(a.leader.leading(), false, 'at once')
    await a.leads()
    t.same(a.changes, [true, false, true], 'nobody else took it, but the gap is reported')

    const b = await candidate(t, 'stopped', 'b')
    b.leader.start()
    const lift = a.proxy.fault(() => true, 'swallow')
    await b.leads()
    a.clock.ahead += 60_000
    lift()
    t.equal(a.leader.leading(), false)
    await sleep(1_500)
    t.equal(a.leader.leading(), false, 'somebody else took it')
    t.match((await lease('stopped')).spec, { holderIdentity: 'b' })
  })

  t.test('a Lease that somebody else edited is still renewed', async t => {
    const a = await candidate(t, 'touched', 'a')
    a.leader.start()
    await a.leads()
    const touched = await plane.kubectl('annotate', 'lease', 'touched', 'touched=yes')
    t.equal(touched.code, 0)
    const before = (await lease('touched')).spec?.renewTime
    await waitFor(async () => (await lease('touched')).spec?.renewTime !== before, {
      withinMs: 3_000,
      what: 'a renewal',
    })
    const deleted = await plane.kubectl('delete', 'lease', 'touched')
    t.equal(deleted.code, 0)
    await waitFor(
      () =>
        lease('touched').then(
          () => true,
          () => false,
        ),
      { withinMs: 3_000, what: 'the lease to be made again' },
    )
    t.same(a.changes, [true])
    t.match((await lease('touched')).spec, { holderIdentity: 'a' })
  })

  t.test('a Lease that suddenly belongs to somebody else is given up at once', async t => {
    const a = await candidate(t, 'stolen', 'a', { leaseSeconds: 30 })
    a.leader.start()
    await a.leads()
    const patch = '{"spec":{"holderIdentity":"thief"}}'
    const stolen = await plane.kubectl('patch', 'lease', 'stolen', '--type=merge', '-p', patch)
    t.equal(stolen.code, 0)
    await a.leadsNot()
    t.same(a.changes, [true, false])
    await a.leader.release()
    t.match((await lease('stolen')).spec, { holderIdentity: 'thief' }, 'not ours to give back')
  })

  t.test('a Lease is valid from the time of the request, not of the response', async t => {
    const a = await candidate(t, 'late', 'a', { leaseSeconds: 2, renewSeconds: 4 })
    a.proxy.hooks.after = ({ method }) => (method === 'POST' ? sleep(1_500) : undefined)
    a.leader.start()
    await waitFor(() => a.proxy.requests.some(({ status }) => status === 201), {
      withinMs: 5_000,
      what: 'the lease to be created',
    })
    await sleep(200)
    t.equal(a.leader.leading(), false)
    t.same(a.changes, [])
  })

  t.test('of many candidates that start at the same time, one leads', async t => {
    const all = await Promise.all(['a', 'b', 'c', 'd'].map(id => candidate(t, 'many', id)))
    for (const { leader } of all) leader.start()
    await waitFor(() => all.some(({ leader }) => leader.leading()), {
      withinMs: 3_000,
      what: 'a leader',
    })
    await sleep(1_000)
    t.equal(all.filter(({ leader }) => leader.leading()).length, 1)
  })
})

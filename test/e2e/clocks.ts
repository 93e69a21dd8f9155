import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import type { V1MutatingWebhookConfiguration } from '@kubernetes/client-node'
import t, { type Test } from 'tap'
import { Agent, fetch } from 'undici'
import { waitFor } from '../../sandbox/processes.ts'
import { type Replica, type Replicas, startReplicas } from '../../sandbox/replicas.ts'
import { type CheckedCluster, reachCheckedCluster } from './checked-cluster.ts'
import { pod, references, reviewOf } from './pods.ts'

/** The error of the clock of one replica, for a minute. */
export interface Skew {
  name: string
  offsetMs: number
  /** Whether the replica is also restarted while its clock is wrong. */
  restarted: boolean
}

interface Fixture {
  replicas: Replicas
  cluster: CheckedCluster
}

/** The answers of the API server to the pods of one minute. */
interface Traffic {
  created: number
  /** Other answers. */
  failures: string[]
  longestFailureMs: number
  /** How often a replica was ready although the caBundle did not trust its certificate. */
  untrusted: number
}

const minuteMs = 60_000
const configurationPath =
  '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pullpass'

/** Three replicas; the clock of one of them is wrong for a minute, once for each of `skews`. */
export async function simulateSkews(skews: Skew[]): Promise<void> {
  const replicas = await startReplicas({ count: 3, clocks: true })
  t.teardown(replicas.stop)
  const fixture = { replicas, cluster: await reachCheckedCluster(t, replicas) }
  await whenHealed(fixture, 'before')
  for (const [index, skew] of skews.entries()) {
    await t.test(`a replica works while its clock is ${skew.name} for a minute`, t =>
      simulateSkew(t, fixture, { ...skew, index }),
    )
  }
}

async function simulateSkew(
  t: Test,
  fixture: Fixture,
  { name, offsetMs, restarted, index }: Skew & { index: number },
): Promise<void> {
  const { replicas, cluster } = fixture
  // The first one is the leader; afterwards it may be any.
  const odd = index === 0 ? await replicas.whenLed() : (replicas.all[index % 3] as Replica)
  const namespace = `skewed-${index}`
  const during = `${namespace}-during`
  await cluster.namespace(namespace)
  await cluster.whenRight(namespace)
  await odd.clock?.set(offsetMs)
  const until = performance.now() + minuteMs
  const traffic = createSteadily(fixture, namespace, until)
  const metric = () => odd.pullpass.metric('pullpass_clock_offset_seconds')
  const isReported = async () => Math.abs((await metric()) - offsetMs / 1000) < 10
  await waitFor(isReported, { withinMs: 25_000, what: 'the difference as a metric' })
  const warnings = async () => (await odd.pullpass.readyz()).warnings.join()
  t.match(await warnings(), /^this replica's clock is .* (ahead of|behind) the API server's/m)
  await waitFor(async () => (await eventsOfClock(cluster)) > index, {
    withinMs: 20_000,
    what: 'an event of the difference',
  })
  if (restarted) {
    await odd.kill()
    await odd.restart()
  }
  await cluster.namespace(during)
  await cluster.whenRight(during)
  const { created, failures, longestFailureMs, untrusted } = await traffic
  await odd.clock?.set(0)
  const healing = performance.now()
  await whenHealed(fixture, `${namespace}-after`)
  const healedMs = Math.round(performance.now() - healing)
  t.comment(
    `${name} | created ${created} | failed ${failures.length} | longest failure ${longestFailureMs} ms` +
      ` | ready but not trusted ${untrusted} | healed after ${healedMs} ms`,
  )
  for (const failure of failures) t.comment(failure)
  t.ok(created > 50, 'pods were created')
  t.ok(longestFailureMs < minuteMs, 'no admission fails for a minute on end')
  t.equal(untrusted, 0, 'a replica that says it is ready is trusted')
  for (const each of [namespace, during, `${namespace}-after`]) await cluster.whenRight(each)
  t.same([cluster.mints(namespace), cluster.mints(during)], [1, 1], 'no token is minted twice')
  await waitFor(async () => !(await warnings()).includes('clock'), {
    withinMs: 20_000,
    what: 'the end of the note',
  })
}

/** Creates two pods per second, without waiting for earlier ones. */
async function createSteadily(
  fixture: Fixture,
  namespace: string,
  until: number,
): Promise<Traffic> {
  const answers: ReturnType<typeof create>[] = []
  let untrusted = 0
  for (let count = 0; performance.now() < until; count++) {
    answers.push(create(fixture, namespace, `pod-${count}`))
    if (count % 4 === 0) untrusted += (await untrustedOf(fixture)).length
    await sleep(500)
  }
  const all = await Promise.all(answers)
  const longestFailureMs = Math.round(longestFailure(all))
  const failures = all.flatMap(({ right, said }) => (right ? [] : [said]))
  return { created: all.length - failures.length, failures, longestFailureMs, untrusted }
}

async function create({ cluster }: Fixture, namespace: string, name: string) {
  const { status, body } = await cluster.create(namespace, pod(name))
  const right = status === 201 && references(body).includes('pullpass-registry')
  return { at: performance.now(), right, said: `${name}: HTTP ${status} ${body.message ?? ''}` }
}

/** Time from the first failure to the next success. */
function longestFailure(answers: { at: number; right: boolean }[]): number {
  let longest = 0
  let since: number | undefined
  for (const { at, right } of answers) {
    if (since !== undefined) longest = Math.max(longest, at - since)
    since = right ? undefined : (since ?? at)
  }
  return longest
}

/** The ready ones whose certificate the caBundle does not trust, by the machine's own clock. */
async function untrustedOf({ replicas, cluster }: Fixture): Promise<Replica[]> {
  const ready = await Promise.all(replicas.all.map(each => each.isReady().catch(() => false)))
  const asked = replicas.all.filter((_, index) => ready[index])
  const ca = await bundle(cluster)
  const trusted = await Promise.all(asked.map(replica => isTrusted(replica, ca)))
  const doubted = asked.filter((_, index) => !trusted[index])
  // Bundle, certificate and readiness do not change at the same time: only a lasting state counts.
  if (doubted.length === 0) return []
  await sleep(2000)
  const again = await bundle(cluster)
  const still = await Promise.all(
    doubted.map(
      async each => (await each.isReady().catch(() => false)) && !(await isTrusted(each, again)),
    ),
  )
  return doubted.filter((_, index) => still[index])
}

/** The number of different events about a clock. */
async function eventsOfClock(cluster: CheckedCluster): Promise<number> {
  const path = '/apis/events.k8s.io/v1/namespaces/pullpass/events'
  const { body } = await cluster.ask<{ items: { note?: string }[] }>('GET', path)
  const warnings = body.items.map(({ note = '' }) => note)
  return new Set(warnings.filter(note => note.startsWith("this replica's clock is "))).size
}

async function bundle(cluster: CheckedCluster): Promise<string> {
  const { body } = await cluster.ask<V1MutatingWebhookConfiguration>('GET', configurationPath)
  return Buffer.from(body.webhooks?.[0]?.clientConfig.caBundle ?? '', 'base64').toString()
}

async function isTrusted({ port }: Replica, ca: string): Promise<boolean> {
  const socket = connect({ host: '127.0.0.1', port, ca })
  try {
    await once(socket, 'secureConnect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** All replicas are ready and trusted and add references, one leads, and new namespaces are served. */
async function whenHealed(fixture: Fixture, namespace: string): Promise<void> {
  const { replicas, cluster } = fixture
  const isWell = async () => {
    const ready = await Promise.all(replicas.all.map(each => each.isReady().catch(() => false)))
    if (ready.includes(false)) return false
    const ca = await bundle(cluster)
    const trusted = await Promise.all(replicas.all.map(each => isTrusted(each, ca)))
    if (trusted.includes(false)) return false
    const leading = await Promise.all(replicas.all.map(each => each.leads()))
    return leading.filter(Boolean).length === 1
  }
  await waitFor(isWell, { withinMs: 60_000, what: 'three trusted replicas with one leader' })
  await cluster.namespace(namespace)
  await cluster.whenRight(namespace)
  const ca = await bundle(cluster)
  for (const replica of replicas.all) await givesReference(replica, ca, namespace)
}

async function givesReference({ port, name }: Replica, ca: string, namespace: string) {
  const dispatcher = new Agent({ connect: { ca } })
  try {
    const response = await fetch(`https://127.0.0.1:${port}/mutate?timeout=5s`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(reviewOf(namespace, pod('asked'))),
      dispatcher,
    })
    const { response: answer } = (await response.json()) as { response: { patch?: string } }
    const patch = Buffer.from(answer.patch ?? '', 'base64').toString()
    if (!patch.includes('pullpass-registry')) throw new Error(`${name} gives no reference`)
  } finally {
    await dispatcher.close()
  }
}

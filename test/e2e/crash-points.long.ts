import t from 'tap'
import { startReplicas } from '../../sandbox/replicas.ts'
import { type Action, actionSettings, createActions } from './actions.ts'
import { plantForeign, reachCheckedCluster } from './checked-cluster.ts'
import { createCrashRun, type Moving, type Point } from './crash.ts'
import { type Moment, renewal } from './requests.ts'

const replicas = await startReplicas({ count: 3, proxied: true, settings: actionSettings })
t.teardown(replicas.stop)
const cluster = await reachCheckedCluster(t, replicas)
const foreignLost = await plantForeign(t, replicas, cluster)
const crash = createCrashRun(replicas, cluster)
const actions = createActions(cluster)
const points = new Map<Action, Point[]>()
let count = 0

/** Each point of the actions, with a prepared namespace of its own. */
async function prepare(of: Action[], which: (point: Point, action: Action) => boolean) {
  const moving = of.flatMap(action => {
    const chosen = (points.get(action) ?? []).filter(point => which(point, action))
    return chosen.map((point): Moving => ({ point, action, namespace: `ns-${count++}` }))
  })
  await Promise.all(moving.map(({ action, namespace }) => action.prepare(namespace)))
  return moving
}

/** Requests that belong to an action; all others occur from time to time. */
const belongsToAction = ({ request }: Point) =>
  !/^environment (list|oauth)/.test(request) && /^environment|\/NAME/.test(request)

/** All points of this moment; the renewal is the last one, because it blocks all others. */
const prepareMoment = async (moment: Moment) => [
  ...(await prepare(actions, point => point.moment === moment && belongsToAction(point))),
  ...(await prepare(
    actions.slice(0, 1),
    point => point.moment === moment && point.request === renewal,
  )),
]

const rowOf = ({ action, point }: Moving, outcome: string) =>
  `${action.name.padEnd(28)} | ${point.moment.padEnd(6)} | ${point.request} ${point.nth} | ${outcome}`

t.test('all requests of the leader are recorded', async t => {
  for (const action of [crash.succession, ...actions]) {
    const namespace = `ns-${count++}`
    await action.prepare(namespace)
    points.set(action, await crash.record(action, namespace))
    t.ok(points.get(action)?.some(belongsToAction), action.name)
  }
})

/** A read changes nothing: a crash there leaves the same behind as one at the request before. */
const isFirstOrChanges = ({ request, nth }: Point) => nth === 1 || !request.startsWith('GET')

t.test('a leader that is killed while it takes over is replaced by another', async t => {
  for (const each of await prepare([crash.succession], isFirstOrChanges)) {
    const started = performance.now()
    const killed = await crash.killAt(each)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    t.comment(rowOf(each, killed ? `killed, right after ${seconds} s` : 'did not come again'))
    t.ok(killed || !belongsToAction(each.point), each.point.request)
  }
})

for (const moment of ['before', 'after'] as const) {
  t.test(`if the leader is killed ${moment} any request, the next leader continues`, async t => {
    const moving = await prepareMoment(moment)
    await crash.killAll(moving)
    for (const each of moving) {
      await each.action.whenDone(each.namespace)
      t.comment(rowOf(each, 'killed, right'))
    }
  })

  t.test(`a leader that was suspended ${moment} a request causes no harm later`, async t => {
    const moving = await prepareMoment(moment)
    await crash.stopAll(moving)
    for (const each of moving) {
      await each.action.whenDone(each.namespace)
      t.comment(rowOf(each, 'stopped, right'))
    }
  })
}

t.test('after all crashes, every namespace is correct and nothing else was changed', async t => {
  const { body } = await cluster.ask<{ items: { metadata: { name: string } }[] }>(
    'GET',
    '/api/v1/namespaces?labelSelector=pullpass.io/inject=enabled',
  )
  const names = new Set(body.items.map(({ metadata }) => metadata.name))
  for (let index = 0; index < count; index++) {
    const name = `ns-${index}`
    await (names.has(name) ? cluster.whenRight(name) : cluster.whenNothingIsLeft(name))
  }
  t.ok(names.size > 20, `${names.size} namespaces have one live token each`)
  t.equal(cluster.liveTokens('foreign').length, 0)
  t.same(await foreignLost(), [])
})

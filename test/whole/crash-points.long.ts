import t from 'tap'
import { startReplicas } from '../../sandbox/replicas.ts'
import { createStage, type Moving, type Point } from './crash.ts'
import { createDeeds, type Deed, deedSettings } from './deeds.ts'
import { plantForeign, reachEstate } from './estate.ts'
import { type Moment, renewal } from './requests.ts'

const replicas = await startReplicas({ count: 3, proxied: true, settings: deedSettings })
t.teardown(replicas.stop)
const estate = await reachEstate(t, replicas)
const foreignLost = await plantForeign(t, replicas, estate)
const stage = createStage(replicas, estate)
const deeds = createDeeds(estate)
const points = new Map<Deed, Point[]>()
let count = 0

/** Each point of the deeds, with a namespace of its own that is ready for it. */
async function prepare(of: Deed[], which: (point: Point, deed: Deed) => boolean) {
  const moving = of.flatMap(deed => {
    const chosen = (points.get(deed) ?? []).filter(point => which(point, deed))
    return chosen.map((point): Moving => ({ point, deed, namespace: `ns-${count++}` }))
  })
  await Promise.all(moving.map(({ deed, namespace }) => deed.prepare(namespace)))
  return moving
}

/** What a deed cannot do without; anything else comes by now and then, whatever is done. */
const belongsToDeed = ({ request }: Point) => /^environment|\/NAME/.test(request)

/** All points of this moment, and at the end, because nothing goes on behind it, a renewal. */
const prepareMoment = async (moment: Moment) => [
  ...(await prepare(deeds, point => point.moment === moment && belongsToDeed(point))),
  ...(await prepare(
    deeds.slice(0, 1),
    point => point.moment === moment && point.request === renewal,
  )),
]

const rowOf = ({ deed, point }: Moving, outcome: string) =>
  `${deed.name.padEnd(28)} | ${point.moment.padEnd(6)} | ${point.request} ${point.nth} | ${outcome}`

t.test('the requests that the leader makes are recorded', async t => {
  for (const deed of [stage.succession, ...deeds]) {
    const namespace = `ns-${count++}`
    await deed.prepare(namespace)
    points.set(deed, await stage.record(deed, namespace))
    t.ok(points.get(deed)?.some(belongsToDeed), deed.name)
  }
})

t.test('a leader that is killed while it takes over is followed by another', async t => {
  for (const each of await prepare([stage.succession], () => true)) {
    const started = performance.now()
    const killed = await stage.killAt(each)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    t.comment(rowOf(each, killed ? `killed, right after ${seconds} s` : 'did not come again'))
    t.ok(killed || !belongsToDeed(each.point), each.point.request)
  }
})

for (const moment of ['before', 'after'] as const) {
  t.test(`wherever the leader is killed, ${moment} a request, the next one goes on`, async t => {
    const moving = await prepareMoment(moment)
    await stage.killAll(moving)
    for (const each of moving) {
      await each.deed.whenDone(each.namespace)
      t.comment(rowOf(each, 'killed, right'))
    }
  })

  t.test(`a leader that stood still ${moment} a request does no harm when it goes on`, async t => {
    const moving = await prepareMoment(moment)
    await stage.stopAll(moving)
    for (const each of moving) {
      await each.deed.whenDone(each.namespace)
      t.comment(rowOf(each, 'stopped, right'))
    }
  })
}

t.test('in the end all is as it should be, and nothing else was touched', async t => {
  const { body } = await estate.ask<{ items: { metadata: { name: string } }[] }>(
    'GET',
    '/api/v1/namespaces?labelSelector=pullpass.io/inject=enabled',
  )
  const names = new Set(body.items.map(({ metadata }) => metadata.name))
  for (let index = 0; index < count; index++) {
    const name = `ns-${index}`
    await (names.has(name) ? estate.whenRight(name) : estate.whenNothingIsLeft(name))
  }
  t.ok(names.size > 20, `${names.size} namespaces have one live token each`)
  t.equal(estate.liveTokens('foreign').length, 0)
  t.same(await foreignLost(), [])
})

import t from 'tap'
import { randomWalk } from './random-walk.ts'

/** On a machine with nothing else to do; a busy one walks less far. */
const walkMs = 60_000

t.test('a walk of random events never ends with a namespace without its token', async t => {
  t.setTimeout(4 * walkMs)
  const seed = Number(process.env.SEED ?? 1)
  t.comment(`node test/controller/random-walk.ts --seed ${seed}`)
  const end = performance.now() + walkMs
  const until = () => performance.now() >= end
  const events = await randomWalk({ seed, events: 1_000_000, until })
  t.comment(`${events} events`)
  t.ok(events > 0)
})

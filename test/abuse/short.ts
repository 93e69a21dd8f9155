import t from 'tap'
import { attacks } from './attacks.ts'
import { runTable } from './table.ts'

/** One attack of each kind, for a short time: from one connection where a single one is enough. */
const single = ['large', 'deep', 'wide', 'many keys', 'duplicate keys', 'gzip-declared']

const run = Object.keys(attacks).map(attack => ({
  attack,
  connections: single.includes(attack) ? 1 : 500,
  seconds: 3,
}))

t.test('no attack on the webhook harms honest reviews', t => runTable(t, [run]))

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import t from 'tap'
import { createListReader } from '../../src/bluemix/tokens.ts'
import { createInventory, tokenDescription } from '../../src/issuer/inventory.ts'
import { tokenHash } from '../../src/jwt.ts'

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

const MB = 1024 * 1024
const start = new Date('2026-03-01T12:00:00Z')
const live = new AbortController().signal

/** Bytes that are in use after a collection. */
function heapUsed(): number {
  for (let times = 0; times < 3; times++) collectGarbage()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** A row of about a kilobyte, as the environment writes it. */
function row(index: number, isOurs: boolean): string {
  const description = isOurs ? tokenDescription('one', `namespace-${index}`, start) : 'somebody'
  return JSON.stringify({
    _id: `637b3d8c-a087-5af9-a636-${String(index).padStart(12, '0')}`,
    owner: '637b3d8c-a087-5af9-a636-16e7efc70967',
    token: `eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.${`${index}`.padStart(160, 'x')}.${'y'.repeat(43)}`,
    secondary_owner: description,
    readonly: true,
    revoked: false,
    expiry: 0,
    encrypted_token: 'z'.repeat(400),
  })
}

/** Lists of so many rows, of which so many are ours, read as they arrive. */
function setup({ rows, ours }: { rows: number; ours: number }) {
  const every = rows / ours
  const seen = { most: 0, rows: 0 }
  const list = async (each: Parameters<typeof createListReader>[0]) => {
    const reader = createListReader(token => {
      seen.rows += 1
      each(token)
    })
    reader.write(Buffer.from('{"tokens":['))
    for (let index = 0; index < rows; index++) {
      const isOurs = index % every === 0
      reader.write(Buffer.from((index === 0 ? '' : ',') + row(index, isOurs)))
      if (index % 10_000 === 9999) seen.most = Math.max(seen.most, heapUsed())
    }
    reader.write(Buffer.from(']}'))
    t.ok(reader.isComplete())
    return 'complete' as const
  }
  const inventory = createInventory(
    {
      issuer: { list: (_organization, each) => list(each) },
      holds: () => ({ hashes: new Set([tokenHash('other')]), ids: new Set() }),
      now: () => start,
      logger: pino({ level: 'silent' }),
      metrics: new Registry(),
    },
    { cluster: 'one' },
  )
  inventory.begin(live)
  return { inventory, seen }
}

t.test('10,000 tokens of ours take less than 10 MB', async t => {
  const { inventory } = setup({ rows: 10_000, ours: 10_000 })
  const before = heapUsed()
  await inventory.refresh('acme', live)
  const used = (heapUsed() - before) / MB
  t.equal([...inventory.organization('acme').namespaces()].length, 10_000)
  t.ok(used < 10, `${used.toFixed(1)} MB`)
  t.comment(`${used.toFixed(1)} MB`)
})

t.test('a list of 50,000 rows adds less than 10 MB while it is read', async t => {
  const { inventory, seen } = setup({ rows: 50_000, ours: 500 })
  const before = heapUsed()
  await inventory.refresh('acme', live)
  const added = (seen.most - before) / MB
  t.equal(seen.rows, 50_000)
  t.equal([...inventory.organization('acme').namespaces()].length, 500)
  t.ok(added < 10, `${added.toFixed(1)} MB`)
  t.comment(`${added.toFixed(1)} MB`)
})

import { pino } from 'pino'
import { Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { answeredError } from '../../src/kubernetes/errors.ts'
import { createListWatch } from '../../src/kubernetes/list-watch.ts'
import { createObjectTable } from '../../src/kubernetes/object-table.ts'
import { watchEvents } from '../../src/kubernetes/watch-stream.ts'

interface Account {
  metadata: { name: string; namespace: string; resourceVersion: string }
  text?: unknown
}

const account = (name: string, text?: unknown): Account => ({
  metadata: { name, namespace: 'shop', resourceVersion: '7' },
  text,
})

/** A list as the API server writes it, and a watch of these lines. */
function keepUp(t: Test, objects: Account[], lines: string[] = []) {
  const limits: number[] = []
  const metrics = new Registry()
  const log: Record<string, unknown>[] = []
  const table = createObjectTable<Account, string>({
    key: ({ metadata }) => metadata.name,
    read: ({ metadata }) => (metadata.name.startsWith('kept') ? metadata.name : undefined),
  })
  const open = async (
    _path: string,
    query: Record<string, string>,
    on: { signal: AbortSignal },
  ) => {
    const text = query.watch ? lines.splice(0).join('') : page(query)
    return { status: 200, headers: {}, body: streamOf(text, query.watch ? on.signal : undefined) }
  }
  const page = ({ limit = '', continue: from = '0' }: Record<string, string>) => {
    limits.push(Number(limit))
    const end = Number(from) + Number(limit)
    const more = end < objects.length ? { continue: String(end) } : {}
    const metadata = { resourceVersion: '9', ...more }
    const items = objects.slice(Number(from), end)
    return JSON.stringify({ kind: 'ServiceAccountList', apiVersion: 'v1', metadata, items })
  }
  const watch = createListWatch<Account>(
    {
      client: { open } as never,
      handler: table,
      logger: pino({}, { write: line => log.push(JSON.parse(line)) }),
      metrics,
    },
    { name: 'serviceaccounts', path: '/api/v1/serviceaccounts', query: {} },
  )
  t.teardown(() => watch.stop())
  watch.start()
  const skipped = async () =>
    Number(/skipped_total\{watch="serviceaccounts"\} (\d+)/.exec(await metrics.metrics())?.[1])
  return { watch, table, limits, log, skipped }
}

function streamOf(text: string, until: AbortSignal | undefined) {
  async function* chunks() {
    for (let at = 0; at < text.length; at += 65_536) yield Buffer.from(text.slice(at, at + 65_536))
    if (until) await new Promise((_, reject) => until.addEventListener('abort', reject))
  }
  return Object.assign(chunks(), { text: async () => text, destroy() {} }) as never
}

t.test('a list that is too large for one page is read in smaller pages', async t => {
  const objects = Array.from({ length: 40 }, (_, n) => account(`kept-${n}`, 'x'.repeat(1 << 18)))
  const { watch, table, limits, skipped } = keepUp(t, objects)
  await watch.whenSynced()
  t.equal([...table.keys()].length, 40)
  t.equal(Math.max(...limits.slice(10)), 3, 'the size stays where it fits')
  t.ok(limits.length < 30, `${limits.length} requests`)
  t.equal(await skipped(), 0, 'the counter is there from the start')
})

t.test('an object that is too large is skipped, and all objects after it are listed', async t => {
  const dense = Array.from({ length: 500_000 }, () => ({}))
  const objects = [
    ...[account('kept-1'), account('huge', 'x'.repeat(5 << 20)), account('kept-2')],
    ...[account('dense', dense), account('kept-3')],
  ]
  const { watch, table, limits, log, skipped } = keepUp(t, objects)
  await watch.whenSynced()
  t.strictSame([...table.keys()], ['kept-1', 'kept-2', 'kept-3'])
  t.equal(await skipped(), 2)
  t.ok(limits.length < 30, `${limits.length} requests`)
  t.equal(watch.problem(), undefined)
  t.equal(log.filter(({ object }) => object === 'shop/huge').length, 1)
})

t.test('a change to an object that is too large counts as its removal', async t => {
  const line = (object: Account) => `${JSON.stringify({ type: 'MODIFIED', object })}\n`
  const at = (name: string, resourceVersion: string, text?: unknown) => ({
    metadata: { name, namespace: 'shop', resourceVersion },
    text,
  })
  const lines = [line(at('kept-1', '10', 'x'.repeat(5 << 20))), line(at('kept-2', '11'))]
  const { table, skipped } = keepUp(t, [account('kept-1')], lines)
  await waitFor(() => table.get('kept-2') !== undefined, { withinMs: 10_000, what: 'kept-2' })
  t.equal(table.get('kept-1'), undefined)
  t.equal(await skipped(), 1)
})

t.test('3,000 objects that are not needed leave no row in memory', async t => {
  const objects = Array.from({ length: 3000 }, (_, n) => account(`${n}`))
  const { watch, table, limits } = keepUp(t, objects)
  await watch.whenSynced()
  t.equal([...table.keys()].length, 0)
  t.same(limits, [500, 500, 500, 500, 500, 500])
})

t.test('only the beginning of a long line is kept in memory', async t => {
  async function* endless() {
    const head = '{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"5"},"x":"'
    yield Buffer.from(head)
    for (let n = 0; n < 200; n++) yield Buffer.alloc(1 << 20, 'x')
    yield Buffer.from('"}}\n')
  }
  const found: unknown[] = []
  for await (const event of watchEvents(endless())) found.push(event)
  const object = { metadata: { name: 'a', resourceVersion: '5' } }
  t.strictSame(found, [{ type: 'OVERSIZED', object }])
})

t.test('a wait that the API server asks for is limited to 30 s', async t => {
  const rows: [asked: string | undefined, ms: number | undefined][] = [
    ['7', 7000],
    ['3600', 30_000],
    ['9999999', 30_000],
    ['Infinity', 30_000],
    ['-1', undefined],
    ['NaN', undefined],
    ['Wed, 25 Nov 2026 12:00:00 GMT', undefined],
    [undefined, undefined],
  ]
  for (const [asked, ms] of rows) {
    const error = answeredError('list', 429, { headers: { 'retry-after': asked }, body: '' })
    t.equal(error.retryAfterMs, ms, `Retry-After: ${asked}`)
  }
})

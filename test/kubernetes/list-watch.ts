import { unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Cluster, KubeConfig, type User } from '@kubernetes/client-node'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { type Match, startFaultProxy } from '../../sandbox/fault-proxy.ts'
import { makeFolder, waitFor } from '../../sandbox/processes.ts'
import { createKubernetesClient, KubernetesError } from '../../src/kubernetes/client.ts'
import type { ListWatchHandler } from '../../src/kubernetes/list-pages.ts'
import { createListWatch } from '../../src/kubernetes/list-watch.ts'
import { type Ending, paceAfter } from '../../src/kubernetes/watch-pace.ts'
import { watchEvents } from '../../src/kubernetes/watch-stream.ts'
import { sharedControlPlane } from './control-plane.ts'

interface Item {
  metadata: { name: string; resourceVersion: string }
}

async function collect(chunks: string[], longestLine?: number): Promise<string[]> {
  async function* stream() {
    for (const chunk of chunks) yield Buffer.from(chunk)
  }
  const found: string[] = []
  for await (const event of watchEvents<{ name: string }>(stream(), longestLine)) {
    found.push(`${event.type} ${JSON.stringify(event.object)}`)
  }
  return found
}

t.test('a watch is read line by line, whatever the chunks are', async t => {
  const added = '{"type":"ADDED","object":{"name":"shöp"}}\n'
  const bytes = Buffer.from(added)
  const middle = bytes.indexOf(0xc3) + 1
  async function* inTwo() {
    yield bytes.subarray(0, middle)
    yield bytes.subarray(middle)
  }
  for await (const event of watchEvents<{ name: string }>(inTwo())) {
    t.same(event, { type: 'ADDED', object: { name: 'shöp' } }, 'cut within a character')
  }
  const two = ['ADDED {"name":"shöp"}', 'ADDED {"name":"shöp"}']
  t.same(await collect([added + added]), two)
  t.same(await collect([...`${added}\n${added}`]), two)
  t.same(await collect([added, added.slice(0, 20)]), two.slice(1), 'half a line is dropped')
})

t.test('a line that is not a watch event ends the watch', async t => {
  const malformed = [
    '<html>\n',
    'null\n',
    '7\n',
    '{"type":"ADDED"}\n',
    '{"type":"ADDED","object":null}\n',
    '{"type":"NEW","object":{}}\n',
  ]
  for (const line of malformed) {
    await t.rejects(collect([line]), { name: 'MalformedWatch' }, line.trim())
  }
  await t.rejects(collect(['x'.repeat(60), 'x'.repeat(60)], 100), { name: 'MalformedWatch' })
})

t.test('the pause after a watch depends on how it ended', async t => {
  const answered = (status: number, more = {}) => new KubernetesError('', { status, ...more })
  const unanswered = (reason: string) => new KubernetesError('', { reason })
  const causes = ['ResourceVersionTooLarge']
  const steady = { livedMs: 60_000 }
  const none = { livedMs: 0, askedMs: 60_000, silentWatches: 0, hasFailed: false }
  const rows: [string, Partial<Ending>, number, ReturnType<typeof paceAfter>][] = [
    ['closed in order', steady, 3, p('closed', false, 0, 0)],
    ['closed at once', {}, 0, p('closed_early', false, 1000, 1)],
    ['closed at once, again', {}, 1, p('closed_early', false, 2000, 2)],
    ['closed at once, for ever', {}, 5000, p('closed_early', false, 30_000, 5001)],
    [
      'a short watch, closed in order',
      { livedMs: 990, askedMs: 1000 },
      0,
      p('closed', false, 0, 0),
    ],
    ['410 after a while', { ...steady, error: answered(410) }, 0, p('gone', true, 0, 0)],
    ['410 at once', { error: answered(410) }, 2, p('gone', true, 4000, 3)],
    ['no version', { error: answered(400) }, 0, p('gone', true, 1000, 1)],
    ['future version', { error: answered(504, { causes }) }, 0, p('gone', true, 1000, 1)],
    ['expired', { error: answered(500, { reason: 'Expired' }) }, 0, p('gone', true, 1000, 1)],
    ['garbage', { ...steady, error: unanswered('Malformed') }, 0, p('malformed', true, 1000, 1)],
    ['reset', { ...steady, error: unanswered('ECONNRESET') }, 0, p('network', false, 1000, 1)],
    ['half-open', { ...steady, error: unanswered('Timeout') }, 0, p('timeout', false, 1000, 1)],
    ['bad credentials', { error: answered(401) }, 4, p('http', false, 16_000, 5)],
    ['a silent watch', { ...steady, silentWatches: 1 }, 0, p('closed', false, 0, 0)],
    ['another silent watch', { ...steady, silentWatches: 2 }, 0, p('closed', true, 0, 0)],
    [
      'a silent watch after a failure',
      { ...steady, silentWatches: 1, hasFailed: true },
      0,
      p('closed', true, 0, 0),
    ],
    [
      'a failure after a failure',
      { hasFailed: true, error: answered(500) },
      1,
      p('http', false, 2000, 2),
    ],
    [
      'silent past its time',
      { livedMs: 70_000, silentWatches: 1, error: unanswered('Timeout') },
      0,
      p('timeout', true, 1000, 1),
    ],
    [
      'asks for patience without bound',
      { error: answered(429, { retryAfterMs: 1e12 }) },
      0,
      p('http', false, 30_000, 1),
    ],
    ['too many', { error: answered(429, { retryAfterMs: 7000 }) }, 0, p('http', false, 7000, 1)],
  ]
  for (const [name, ending, failures, expected] of rows) {
    t.same(paceAfter({ ...none, ...ending }, failures, 0), expected, name)
  }
  const failed = { ...none, askedMs: 1, error: answered(500) }
  t.equal(paceAfter(failed, 0, 1).waitMs, 500, 'jitter')
})

function p(kind: ReturnType<typeof paceAfter>['kind'], relist: boolean, waitMs: number, f: number) {
  return { kind, relist, waitMs, failures: f }
}

const isWatch: Match = ({ path }) => path.includes('watch=true')
const isList: Match = request => request.path.includes('configmaps') && !isWatch(request)

const GONE = {
  kind: 'Status',
  status: 'Failure',
  reason: 'Expired',
  message: 'too old resource version: 1 (2)',
  code: 410,
}

t.test('list and watch work with a real API server', async t => {
  const plane = await sharedControlPlane()
  const admin = createKubernetesClient({ kubeConfig: plane.kubeConfig() }, { timeoutMs: 10_000 })
  t.teardown(() => admin.close())

  async function create(name: string, label: string): Promise<void> {
    const body = { metadata: { name, labels: { watch: label } } }
    await admin.core.createNamespacedConfigMap({ namespace: 'default', body })
  }
  const remove = (name: string) =>
    admin.core.deleteNamespacedConfigMap({ namespace: 'default', name })

  /** Watches the ConfigMaps with `label` through a proxy of the test. */
  async function keepUp(
    t: Test,
    label: string,
    options: {
      kubeConfig?: KubeConfig
      query?: Record<string, string>
      watchSeconds?: number
      relistSeconds?: number
      upsert?: () => void
    } = {},
  ) {
    const { kubeConfig: base = plane.kubeConfig(), query, upsert, ...rest } = options
    const proxy = await startFaultProxy(plane)
    const kubeConfig = new KubeConfig()
    kubeConfig.loadFromString(proxy.kubeconfig(base))
    const metrics = new Registry()
    const client = createKubernetesClient({ kubeConfig, metrics }, { timeoutMs: 5_000 })
    const known = new Set<string>()
    const log: { msg: string; kind?: string; status?: number; error?: string }[] = []
    const handler: ListWatchHandler<Item> = {
      replace() {
        const listed: string[] = []
        return {
          add: ({ metadata }) => void listed.push(metadata.name),
          complete() {
            known.clear()
            for (const name of listed) known.add(name)
          },
        }
      },
      upsert({ metadata }) {
        upsert?.()
        known.add(metadata.name)
      },
      remove: ({ metadata }) => known.delete(metadata.name),
    }
    const logger = pino({}, { write: line => log.push(JSON.parse(line)) })
    const watch = createListWatch<Item>(
      { client, handler, logger, metrics },
      {
        ...rest,
        name: 'configmaps',
        path: '/api/v1/configmaps',
        query: { labelSelector: `watch=${label}`, ...query },
      },
    )
    t.teardown(async () => {
      await watch.stop()
      await client.close()
      await proxy.stop()
    })
    const knows = (...names: string[]) =>
      waitFor(() => [...known].sort().join() === names.sort().join(), {
        withinMs: 20_000,
        what: `${names.join(', ')} to be known`,
      })
    const failed = (kind: string) =>
      waitFor(() => log.some(line => line.kind === kind), {
        withinMs: 20_000,
        what: `a watch that ended by ${kind}`,
      })
    const count = (match: Match) => proxy.requests.filter(match).length
    return { proxy, watch, known, log, metrics, knows, failed, count }
  }

  t.test('a list of several pages is delivered as one list, and then watched', async t => {
    for (const n of [1, 2, 3, 4, 5]) await create(`paged-${n}`, 'paged')
    const { watch, known, knows, count, metrics } = await keepUp(t, 'paged', {
      query: { limit: '2' },
    })
    t.equal(watch.synced(), false)
    watch.start()
    await watch.whenSynced()
    t.equal(known.size, 5)
    t.equal(watch.synced(), true)
    t.equal(count(isList), 3, 'pages')
    await create('paged-6', 'paged')
    await remove('paged-1')
    await knows('paged-2', 'paged-3', 'paged-4', 'paged-5', 'paged-6')
    const patch = [{ op: 'remove', path: '/metadata/labels' }]
    await admin.core.patchNamespacedConfigMap({
      namespace: 'default',
      name: 'paged-2',
      body: patch,
    })
    await knows('paged-3', 'paged-4', 'paged-5', 'paged-6')
    const shown = await metrics.metrics()
    t.match(shown, 'pullpass_watch_relists_total{watch="configmaps"} 0')
    t.match(shown, /pullpass_watch_last_contact_timestamp_seconds\{watch="configmaps"\} 1\d{9}/)
  })

  t.test('a lost connection loses no change and costs no new list', async t => {
    const { watch, proxy, knows, failed, count } = await keepUp(t, 'cut')
    watch.start()
    await watch.whenSynced()
    await create('cut-1', 'cut')
    await knows('cut-1')
    proxy.reset()
    await remove('cut-1')
    await create('cut-2', 'cut')
    await failed('network')
    await knows('cut-2')
    t.equal(count(isList), 1)
    t.equal(watch.problem(), undefined, 'what was in the way is no more')
  })

  t.test('an expired resourceVersion leads to a new list with the missed changes', async t => {
    const { watch, proxy, knows, count, metrics } = await keepUp(t, 'gone')
    watch.start()
    await create('gone-1', 'gone')
    await knows('gone-1')
    await proxy.down()
    await remove('gone-1')
    await create('gone-2', 'gone')
    proxy.fault(isWatch, { status: 410, body: GONE }, 1)
    await proxy.up()
    await knows('gone-2')
    t.equal(count(isList), 2, 'after 410 as the status of the answer')
    await waitFor(() => proxy.inject(isWatch, { type: 'ERROR', object: GONE }) > 0, {
      withinMs: 5_000,
      what: 'an open watch',
    })
    await waitFor(() => count(isList) === 3, {
      withinMs: 5_000,
      what: 'a list after 410 as an event',
    })
    await create('gone-3', 'gone')
    await knows('gone-2', 'gone-3')
    t.match(await metrics.metrics(), 'pullpass_watch_relists_total{watch="configmaps"} 2')
  })

  t.test('if the snapshot of the pages has expired, the list starts again', async t => {
    for (const n of [1, 2, 3]) await create(`pages-${n}`, 'pages')
    const { watch, proxy, knows } = await keepUp(t, 'pages', { query: { limit: '2' } })
    proxy.fault(({ path }) => path.includes('continue='), { status: 410, body: GONE }, 1)
    watch.start()
    await knows('pages-1', 'pages-2', 'pages-3')
  })

  t.test('the state of the server is delivered, even if it is wrong', async t => {
    await create('lie-1', 'lie')
    await create('lie-2', 'lie')
    const { watch, proxy, known, knows } = await keepUp(t, 'lie')
    watch.start()
    await knows('lie-1', 'lie-2')
    await waitFor(() => proxy.requests.some(isWatch), { withinMs: 5_000, what: 'a watch' })
    const object = { metadata: { name: 'lie-1' } }
    await waitFor(() => proxy.inject(isWatch, { type: 'DELETED', object }) > 0, {
      withinMs: 5_000,
      what: 'an open watch',
    })
    await knows('lie-2')
    proxy.fault(
      isList,
      ({ status, body }) => ({ status, body: { ...JSON.parse(String(body)), items: null } }),
      1,
    )
    proxy.inject(isWatch, { type: 'ERROR', object: GONE })
    await waitFor(() => known.size === 0, { withinMs: 5_000, what: 'the empty list' })
    await create('lie-3', 'lie')
    await knows('lie-3')
  })

  t.test('a new list is read from time to time, even without a change', async t => {
    const options = { watchSeconds: 1, relistSeconds: 2 }
    const { watch, count, knows } = await keepUp(t, 'now-and-then', options)
    await create('now-and-then-1', 'now-and-then')
    watch.start()
    await knows('now-and-then-1')
    await waitFor(() => count(isList) > 2, { withinMs: 20_000, what: 'two more lists' })
    await knows('now-and-then-1')
  })

  t.test('a half-open connection is closed', async t => {
    const { watch, proxy, knows, failed } = await keepUp(t, 'half-open', { watchSeconds: 1 })
    watch.start()
    await create('half-open-1', 'half-open')
    await knows('half-open-1')
    const freezeWatch = async () => {
      const isOpen = proxy.watches(isWatch) > 0
      if (isOpen) proxy.freeze()
      return isOpen
    }
    await waitFor(freezeWatch, { withinMs: 5_000, what: 'an open watch' })
    await create('half-open-2', 'half-open')
    await failed('timeout')
    await knows('half-open-1', 'half-open-2')
  })

  t.test('an expired token is replaced by the new one in its file', async t => {
    const folder = await makeFolder('test-token')
    t.teardown(() => folder.remove())
    const tokenFile = join(folder.path, 'token')
    const base = plane.kubeConfig()
    const good = base.getCurrentUser()?.token ?? ''
    await writeFile(tokenFile, 'expired\n')
    const user = { name: 'admin', authProvider: { name: 'tokenFile', config: { tokenFile } } }
    base.loadFromClusterAndUser({ ...base.getCurrentCluster() } as Cluster, user as User)
    const { watch, knows, log } = await keepUp(t, 'token', { kubeConfig: base })
    watch.start()
    await waitFor(() => log.some(line => line.status === 401), { withinMs: 5_000, what: 'a 401' })
    await unlink(tokenFile)
    await waitFor(() => log.some(line => line.error?.includes('ENOENT')), {
      withinMs: 5_000,
      what: 'a request without its token file',
    })
    await writeFile(tokenFile, `${good}\n`)
    await create('token-1', 'token')
    await knows('token-1')
  })

  t.test('list and watch continue after the API server restarts', async t => {
    const { watch, knows, failed } = await keepUp(t, 'restart')
    watch.start()
    await create('restart-1', 'restart')
    await knows('restart-1')
    await plane.restart()
    await failed('network')
    await create('restart-2', 'restart')
    await knows('restart-1', 'restart-2')
  })

  t.test('a server that ends every watch at once causes no busy loop', async t => {
    const { watch, proxy, count } = await keepUp(t, 'storm')
    proxy.fault(isWatch, { status: 200, body: '' })
    watch.start()
    await sleep(4_000)
    t.ok(count(isWatch) >= 2)
    t.ok(count(isWatch) <= 5, `${count(isWatch)} watches in 4 s`)
    t.equal(count(isList), 1)
  })

  t.test('an invalid response is requested again', async t => {
    const html = { status: 200, body: '<html>sign in</html>' }
    const { watch, proxy, known, knows, log } = await keepUp(t, 'html')
    proxy.fault(isList, html, 1)
    proxy.fault(isList, { status: 500, body: '<html>oops</html>' }, 1)
    proxy.fault(isWatch, { status: 200, body: '<html>sign in</html>\n' }, 1)
    watch.start()
    await create('html-1', 'html')
    await knows('html-1')
    await waitFor(() => log.some(line => line.kind === 'malformed'), {
      withinMs: 10_000,
      what: 'the malformed watch',
    })
    await create('html-2', 'html')
    await knows('html-1', 'html-2')
    t.notMatch(JSON.stringify(log), 'sign in')
    t.equal(known.size, 2)
  })

  t.test('a watch continues when the handling of one object fails', async t => {
    let bugs = 1
    const upsert = () => {
      if (bugs-- > 0) throw new Error('the secret is hunter2')
    }
    const { watch, knows, log, metrics } = await keepUp(t, 'bug', { upsert })
    watch.start()
    await watch.whenSynced()
    await create('bug-1', 'bug')
    await create('bug-2', 'bug')
    await knows('bug-2')
    t.notMatch(JSON.stringify(log), 'hunter2')
    t.match(await metrics.metrics(), 'errors_total{watch="configmaps",kind="handler"} 1')
  })

  t.test('stop ends list and watch at once, without errors, in every state', async t => {
    const moments = {
      'before the first answer': async ({ proxy }: Kept) => void proxy.fault(isList, 'swallow'),
      'in the middle of a watch': async ({ watch }: Kept) => watch.whenSynced(),
      'while waiting for the next try': async ({ proxy, failed }: Kept) => {
        proxy.fault(isList, { status: 500, body: {} })
        await failed('http')
      },
      'before the start': async () => {},
    }
    for (const [moment, arrive] of Object.entries(moments)) {
      const kept = await keepUp(t, 'stop')
      const arriving = arrive(kept)
      if (moment !== 'before the start') kept.watch.start()
      await arriving
      await sleep(50)
      const lines = kept.log.length
      const requests = kept.proxy.requests.length
      const began = performance.now()
      await kept.watch.stop()
      t.ok(performance.now() - began < 500, moment)
      await sleep(200)
      t.equal(kept.log.length, lines, `${moment}: nothing is logged`)
      t.equal(kept.proxy.requests.length, requests, `${moment}: nothing is asked`)
    }
  })

  t.test('the wait for the first list can be canceled', async t => {
    const { watch, proxy } = await keepUp(t, 'wait')
    await proxy.down()
    watch.start()
    await t.rejects(watch.whenSynced(AbortSignal.timeout(100)), { name: 'TimeoutError' })
    await t.rejects(watch.whenSynced(AbortSignal.abort(new Error('over'))), { message: 'over' })
    await proxy.up()
    await watch.whenSynced(AbortSignal.timeout(10_000))
    t.equal(watch.synced(), true)
  })

  type Kept = Awaited<ReturnType<typeof keepUp>>
})

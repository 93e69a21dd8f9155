import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { KubeConfig } from '@kubernetes/client-node'
import pino from 'pino'
import { Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { createKubernetesClient } from '../../src/kubernetes/client.ts'
import { createServerClock } from '../../src/kubernetes/server-clock.ts'

const SECOND = 1000
const MINUTE = 60_000
const HOUR = 3_600_000
const DAY = 24 * HOUR
const START = Date.parse('2030-01-01T00:00:00Z')

/** The clock of a replica that is `aheadMs` ahead of an API server; the test says when time passes. */
function setup() {
  const log: { msg: string }[] = []
  const metrics = new Registry()
  let elapsed = 0
  let aheadMs = 0
  const clock = createServerClock({
    logger: pino({}, { write: line => void log.push(JSON.parse(line)) }),
    metrics,
    wallClock: () => START + elapsed + aheadMs,
    monotonic: () => elapsed,
  })
  const server = () => START + elapsed
  return {
    clock,
    log: () => log.map(({ msg }) => msg),
    metric: async () =>
      Number(/^pullpass_clock_offset_seconds (.*)$/m.exec(await metrics.metrics())?.[1]),
    /** How far `now()` is from the time of the API server. */
    error: () => clock.now().getTime() - server(),
    pass: (ms: number) => {
      elapsed += ms
    },
    setAhead: (ms: number) => {
      aheadMs = ms
    },
    /** An answer that takes `ms`, of an API server whose own clock is `odd` ms off. */
    answer: (odd = 0, ms = 20) => {
      const startedMs = elapsed
      elapsed += ms / 2
      const date = new Date(server() + odd).toUTCString()
      elapsed += ms / 2
      clock.observe(date, startedMs)
    },
  }
}

t.test('a clock that agrees with one response of the API server is used as it is', async t => {
  const { clock, answer, error, setAhead, metric } = setup()
  t.notOk(clock.isMeasured())
  setAhead(3 * SECOND)
  answer()
  t.ok(clock.isMeasured())
  t.equal(error(), 3 * SECOND, 'a difference of seconds may be one of the measurement')
  t.equal(clock.problem(), undefined)
  t.equal(await metric(), 3)
})

t.test('a wrong clock is corrected to within seconds', async t => {
  for (const aheadMs of [HOUR, -HOUR, DAY, -DAY, 400 * DAY, -400 * DAY]) {
    for (const takesMs of [10, 4000]) {
      const { clock, answer, pass, error, setAhead } = setup()
      setAhead(aheadMs)
      for (const wait of [0, 333, 777]) {
        pass(wait)
        answer(0, takesMs)
      }
      t.ok(clock.isMeasured())
      t.ok(Math.abs(error()) <= 500 + takesMs / 2, `${error()} ms`)
      t.equal(clock.local().getTime() - clock.now().getTime() > 0, aheadMs > 0)
    }
  }
})

t.test('a clock is used until three responses contradict it', async t => {
  const { clock, answer, error, setAhead, log } = setup()
  setAhead(DAY)
  answer()
  answer()
  t.notOk(clock.isMeasured())
  t.equal(error(), DAY)
  t.equal(clock.problem(), undefined)
  answer()
  t.ok(clock.isMeasured())
  t.ok(Math.abs(error()) < SECOND)
  t.strictSame(log(), ["this replica's clock is 24 h ahead of the API server's"])
})

t.test('single wrong responses, slow ones and those without a date change nothing', async t => {
  const { clock, answer, error } = setup()
  answer()
  for (const odd of [400 * DAY, -HOUR]) {
    answer(odd)
    answer()
    answer()
    t.ok(Math.abs(error()) < SECOND)
  }
  for (let count = 0; count < 9; count++) answer(HOUR, 15 * SECOND)
  for (const date of [undefined, '', 'yesterday', ['a', 'b'], 7]) clock.observe(date, 0)
  t.ok(Math.abs(error()) < SECOND)
  t.equal(clock.problem(), undefined)
})

t.test('if one of three API servers has a wrong clock, the other two decide', async t => {
  const { clock, answer, error } = setup()
  for (let round = 0; round < 20; round++) {
    answer()
    answer(400 * DAY)
    answer(2 * SECOND)
    t.ok(Math.abs(error()) < 4 * SECOND)
  }
  t.equal(clock.problem(), undefined)
})

t.test('a change of the clock is noticed without another response', async t => {
  const { clock, answer, error, setAhead, metric } = setup()
  answer()
  setAhead(-400 * DAY)
  t.ok(Math.abs(error()) < SECOND)
  t.equal(clock.problem(), "this replica's clock is 400 days behind the API server's")
  t.ok(Math.abs((await metric()) * SECOND + 400 * DAY) <= SECOND)
  setAhead(0)
  t.equal(error(), 0)
  t.equal(clock.problem(), undefined)
})

t.test('a clock difference above one minute is reported once for each change', async t => {
  const { clock, answer, setAhead, log } = setup()
  const rows: [aheadMs: number, problem: string | undefined][] = [
    [50 * SECOND, undefined],
    [100 * SECOND, "this replica's clock is 2 min ahead of the API server's"],
    [101 * SECOND, "this replica's clock is 2 min ahead of the API server's"],
    [75 * SECOND, "this replica's clock is 2 min ahead of the API server's"],
    [0, undefined],
    [-HOUR, "this replica's clock is 1 h behind the API server's"],
    [-HOUR + 5 * SECOND, "this replica's clock is 1 h behind the API server's"],
    [1.5 * HOUR, "this replica's clock is 1.5 h ahead of the API server's"],
    [0, undefined],
  ]
  for (const [aheadMs, problem] of rows) {
    setAhead(aheadMs)
    answer()
    answer()
    t.equal(clock.problem(), problem, `${aheadMs / MINUTE} min`)
  }
  const agrees = "the clock agrees with the API server's again"
  const changes = rows.flatMap(([, problem], index) =>
    problem === rows[index - 1]?.[1] ? [] : [problem ?? agrees],
  )
  t.strictSame(log(), changes)
})

/** A client of a server that answers everything with this date. */
async function clientOf(t: Test, date: () => string) {
  const server = createServer((_, response) => {
    response.sendDate = false
    response.setHeader('Date', date())
    response.setHeader('Content-Type', 'application/json')
    response.end('{"kind":"Namespace","apiVersion":"v1"}')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const kubeConfig = new KubeConfig()
  const { port } = server.address() as AddressInfo
  kubeConfig.loadFromClusterAndUser(
    { name: 'c', server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
    { name: 'u' } as never,
  )
  const clock = createServerClock({ logger: pino({ level: 'silent' }), metrics: new Registry() })
  const client = createKubernetesClient({ kubeConfig, clock }, { timeoutMs: 5000 })
  t.teardown(async () => {
    await client.close()
    server.close()
  })
  return { client, clock }
}

t.test('every response of the API server is used for the clock, including streams', async t => {
  const { client, clock } = await clientOf(t, () => new Date(Date.now() - HOUR).toUTCString())
  await client.core.readNamespace({ name: 'default' })
  await client.core.readNamespace({ name: 'default' })
  t.notOk(clock.isMeasured())
  const { body } = await client.open('/api/v1/pods', {}, { signal: AbortSignal.timeout(5000) })
  await body.text()
  t.ok(clock.isMeasured())
  t.equal(clock.problem(), "this replica's clock is 1 h ahead of the API server's")
})

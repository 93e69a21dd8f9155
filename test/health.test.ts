import pino from 'pino'
import { Counter, Registry } from 'prom-client'
import t from 'tap'
import { buildOperationsServer, type OperationsDependencies } from '../src/health.ts'

function setup(options: Partial<OperationsDependencies> = {}) {
  const log: Record<string, unknown>[] = []
  const server = buildOperationsServer({
    ready: () => ({ ready: true, problems: [] }),
    warnings: () => [],
    metrics: new Registry(),
    logger: pino({}, { write: line => void log.push(JSON.parse(line)) }),
    ...options,
  })
  return { server, log }
}

t.test('a program that answers is live', async t => {
  t.match(await setup().server.inject('/livez'), { statusCode: 200, body: 'ok\n' })
})

t.test('readiness names what is missing; a note makes nobody unready', async t => {
  let problems = ['namespaces are not synchronised yet']
  const { server } = setup({
    ready: () => ({ ready: problems.length === 0, problems }),
    warnings: () => ['the login was refused'],
  })
  const early = await server.inject('/readyz')
  t.equal(early.statusCode, 503)
  t.strictSame(early.json(), { ready: false, problems, warnings: ['the login was refused'] })
  problems = []
  const later = await server.inject('/readyz')
  t.equal(later.statusCode, 200)
  t.strictSame(later.json(), { ready: true, problems: [], warnings: ['the login was refused'] })
})

t.test('metrics are told in the language of Prometheus', async t => {
  const metrics = new Registry()
  new Counter({ name: 'pullpass_things_total', help: 'Things', registers: [metrics] }).inc(3)
  const response = await setup({ metrics }).server.inject('/metrics')
  t.equal(response.statusCode, 200)
  t.equal(response.headers['content-type'], metrics.contentType)
  t.match(response.body, /^pullpass_things_total 3$/m)
})

t.test('a probe that fails is a 500 and a line in the log', async t => {
  const { server, log } = setup({
    ready: () => {
      throw new Error('broken')
    },
  })
  t.match(await server.inject('/readyz'), { statusCode: 500, body: 'could not be answered\n' })
  t.match(log, [{ level: 50, path: '/readyz', at: ['Error', /health/] }])
})

t.test('nothing else is served here', async t => {
  const { server, log } = setup()
  t.equal((await server.inject('/')).statusCode, 404)
  t.equal((await server.inject({ method: 'POST', url: '/livez', payload: {} })).statusCode, 404)
  t.strictSame(log, [])
})

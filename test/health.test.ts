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

t.test('a program that answers is reported as live', async t => {
  t.match(await setup().server.inject('/livez'), { statusCode: 200, body: 'ok\n' })
})

t.test('/readyz names what is missing, and a warning alone keeps it ready', async t => {
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

t.test('metrics are served in the Prometheus format', async t => {
  const metrics = new Registry()
  new Counter({ name: 'pullpass_things_total', help: 'Things', registers: [metrics] }).inc(3)
  const response = await setup({ metrics }).server.inject('/metrics')
  t.equal(response.statusCode, 200)
  t.equal(response.headers['content-type'], metrics.contentType)
  t.match(response.body, /^pullpass_things_total 3$/m)
})

t.test('a probe that throws gives HTTP 500 and a log line', async t => {
  const { server, log } = setup({
    ready: () => {
      throw new Error('broken')
    },
  })
  t.match(await server.inject('/readyz'), { statusCode: 500, body: 'could not be answered\n' })
  t.match(log, [{ level: 50, path: '/readyz', at: ['Error', /health/] }])
})

t.test('the operations port serves no other path', async t => {
  const { server, log } = setup()
  t.equal((await server.inject('/')).statusCode, 404)
  t.equal((await server.inject({ method: 'POST', url: '/livez', payload: {} })).statusCode, 404)
  t.strictSame(log, [])
})

import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import { Agent, request } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import { connect as connectTls } from 'node:tls'
import pino from 'pino'
import { Registry } from 'prom-client'
import { generate } from 'selfsigned'
import t from 'tap'
import {
  type Certificate,
  type HttpsServer,
  replaceCertificate,
  stopServer,
} from '../../src/webhook/https-server.ts'
import { allowed } from '../../src/webhook/response.ts'
import type { Review } from '../../src/webhook/review.ts'
import { parseDurationMs, reviewBudgetMs } from '../../src/webhook/review.ts'
import { buildWebhookServer, type WebhookServerOptions } from '../../src/webhook/server.ts'

type Test = Pick<typeof t, 'teardown'>

async function makeCertificate(): Promise<Certificate> {
  const made = await generate([{ name: 'commonName', value: 'pullpass' }], {
    algorithm: 'sha256',
    keyType: 'ec',
    extensions: [
      { name: 'basicConstraints', cA: true },
      { name: 'subjectAltName', altNames: [{ type: 2, value: 'pullpass.pullpass.svc' }] },
    ],
  })
  return { key: made.private, cert: made.cert }
}

const certificate = await makeCertificate()

const leave = (review: Review) =>
  Promise.resolve({
    answer: allowed(review.uid, { action: 'leave', reason: 'no_private_image' }),
    outcome: 'no_private_image',
  })

function setup(t: Test, options: Partial<WebhookServerOptions> = {}) {
  const log: Record<string, unknown>[] = []
  const metrics = new Registry()
  const server = buildWebhookServer({
    mutatePod: leave,
    state: () => 'serving',
    certificate,
    logger: pino({}, { write: line => void log.push(JSON.parse(line)) }),
    metrics,
    ...options,
  })
  t.teardown(() => stopServer(server, 0))
  const outcomes = async () => {
    const lines = await metrics.getSingleMetricAsString('pullpass_admission_reviews_total')
    return Object.fromEntries(
      [...lines.matchAll(/outcome="(\w+)"} ([1-9]\d*)/g)].map(([, outcome, n]) => [
        outcome,
        Number(n),
      ]),
    )
  }
  return { server, log, metrics, outcomes }
}

const REVIEW = {
  apiVersion: 'admission.k8s.io/v1',
  kind: 'AdmissionReview',
  request: {
    uid: 'uid-1',
    kind: { group: '', version: 'v1', kind: 'Pod' },
    namespace: 'shop',
    operation: 'CREATE',
    object: { metadata: { name: 'web-1' }, spec: { containers: [{ image: 'nginx' }] } },
  },
}

function inject(server: HttpsServer, payload: string | object, url = '/mutate?timeout=5s') {
  const headers = { 'content-type': 'application/json' }
  return server.inject({ method: 'POST', url, headers, payload })
}

t.test('the answer to a review has its UID, and is counted', async t => {
  const { server, log, outcomes, metrics } = setup(t)
  const response = await inject(server, REVIEW)
  t.equal(response.statusCode, 200)
  t.match(response.headers, { 'content-type': /^application\/json/, connection: 'keep-alive' })
  t.strictSame(response.json(), (await leave({ uid: 'uid-1' } as Review)).answer)
  t.strictSame(await outcomes(), { no_private_image: 1 })
  t.match(await metrics.metrics(), /pullpass_admission_review_seconds_bucket{le="25"} 1/)
  t.strictSame(log, [], 'the line per review is written by whoever answers it')
})

t.test('a pod with unknown keys is answered', async t => {
  const { server } = setup(t, {
    mutatePod: async review => ({ ...(await leave(review)), outcome: JSON.stringify(review.pod) }),
  })
  for (const key of ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', '']) {
    const labels = `{"${key}": {"prototype": {"x": 1}}}`
    const object = `{"metadata": {"labels": ${labels}, "${key}": {"prototype": null}}, "spec": {}}`
    const review = JSON.stringify(REVIEW).replace(/"object":.*/, `"object": ${object}}}`)
    const response = await inject(server, review)
    t.equal(response.statusCode, 200, `key '${key}'`)
    t.equal(response.json().response.uid, 'uid-1')
  }
  t.equal(({} as { x?: unknown }).x, undefined, 'and changes no other object')
})

t.test('a request that is not a review of a pod is refused with one sentence', async t => {
  const { server, log, outcomes } = setup(t)
  const deep = '['.repeat(1 << 20)
  for (const [payload, sentence] of [
    ['', /not JSON/],
    ['{', /not JSON/],
    [deep, /not JSON/],
    ['null', /not an AdmissionReview/],
    ['[]', /not an AdmissionReview/],
    [{ ...REVIEW, apiVersion: 'admission.k8s.io/v1beta1' }, /not of admission.k8s.io\/v1/],
    [{ ...REVIEW, request: { ...REVIEW.request, uid: undefined } }, /no usable uid/],
  ] as const) {
    const response = await inject(server, payload)
    t.equal(response.statusCode, 400)
    t.match(response.headers['content-type'], /^text\/plain/)
    t.match(response.body, sentence)
  }
  for (const type of ['text/plain', 'application/yaml', 'application/vnd.kubernetes.protobuf']) {
    const headers = { 'content-type': type }
    const response = await server.inject({ method: 'POST', url: '/mutate', headers, payload: '{}' })
    t.equal(response.statusCode, 415)
    t.match(response.body, /^the body is not of content type application\/json/)
  }
  t.strictSame(await outcomes(), { unusable_review: 10 })
  t.strictSame(log, [], 'nobody can fill the log from outside')
})

t.test('a body of 12 MiB is accepted, a larger one is not', async t => {
  const { server, outcomes } = setup(t)
  const review = JSON.stringify(REVIEW)
  const fits = await inject(server, review.padEnd(12 << 20))
  t.equal(fits.statusCode, 200)
  const tooLarge = await inject(server, review.padEnd((12 << 20) + 1))
  t.equal(tooLarge.statusCode, 413)
  t.match(tooLarge.body, /^the body is larger than 12 MiB/)
  t.strictSame(await outcomes(), { no_private_image: 1, too_large: 1 })
})

t.test('before the first synchronization, the API server is asked to retry', async t => {
  let state: 'starting' | 'serving' = 'starting'
  const { server, outcomes } = setup(t, { state: () => state })
  const early = await inject(server, REVIEW)
  t.equal(early.statusCode, 503)
  t.match(early.headers, { 'retry-after': '1', connection: 'close' })
  t.equal(early.body, 'pullpass is not ready yet\n')
  state = 'serving'
  t.equal((await inject(server, REVIEW)).statusCode, 200)
  t.strictSame(await outcomes(), { not_ready: 1, no_private_image: 1 })
})

t.test('a draining replica answers and closes the connection', async t => {
  const { server, outcomes } = setup(t, { state: () => 'draining' })
  const response = await inject(server, REVIEW)
  t.equal(response.statusCode, 200)
  t.equal(response.headers.connection, 'close')
  t.strictSame(await outcomes(), { no_private_image: 1 })
})

t.test('a bug gives HTTP 500 and a log line without the text of the error', async t => {
  const error = Object.assign(new TypeError('"s3cret" is not iterable'), {
    statusCode: 404,
    headers: { authorization: 'Bearer s3cret' },
  })
  let thrown: unknown = error
  const { server, log, outcomes } = setup(t, { mutatePod: () => Promise.reject(thrown) })
  const response = await inject(server, REVIEW)
  t.equal(response.statusCode, 500)
  t.equal(response.body, 'review uid-1 could not be answered, see the log of pullpass\n')
  t.match(log, [{ level: 50, uid: 'uid-1', at: ['TypeError', /server\.test\.ts/] }])
  t.notMatch(JSON.stringify(log), /s3cret/)
  thrown = 's3cret'
  t.equal((await inject(server, REVIEW)).statusCode, 500)
  t.notMatch(JSON.stringify(log), /s3cret/)
  t.strictSame(await outcomes(), { bug: 2 })
})

t.test('the webhook port serves no other path', async t => {
  const { server, outcomes } = setup(t)
  for (const [method, url] of [
    ['GET', '/mutate'],
    ['POST', '/'],
    ['POST', '/mutate/x'],
    ['GET', '/metrics'],
  ] as const) {
    const response = await server.inject({ method, url })
    t.equal(response.statusCode, 404, `${method} ${url}`)
    t.equal(response.body, 'only POST /mutate is here\n')
  }
  t.strictSame(await outcomes(), {})
})

t.test('an answer is sent within the timeout of the API server', async t => {
  const budgets: number[] = []
  const { server } = setup(t, {
    mutatePod: (review, budgetMs) => {
      budgets.push(budgetMs)
      return leave(review)
    },
  })
  for (const query of ['?timeout=5s', '', '?timeout=1s&timeout=2s', '?timeout=soon']) {
    t.equal((await inject(server, REVIEW, `/mutate${query}`)).statusCode, 200)
  }
  const [five = 0, ...rest] = budgets
  t.ok(five > 3500 && five <= 4000, `of 5 s: ${five}`)
  t.ok(
    rest.every(ms => ms > 8500 && ms <= 9000),
    `of nothing usable, the default of 10 s: ${rest}`,
  )
  t.equal(reviewBudgetMs('5s', 0), 4000)
  t.equal(reviewBudgetMs('1s', 0), 800)
  t.equal(reviewBudgetMs('30s', 1500), 27_500)
  t.equal(reviewBudgetMs('1s', 5000), 0)
  t.equal(reviewBudgetMs('0s', 0), 0)
  t.equal(reviewBudgetMs(undefined, 0), 9000)
})

t.test('a duration is read in the format of Go', async t => {
  const durations: [text: string, ms: number | undefined][] = [
    ['5s', 5000],
    ['4.998s', 4998],
    ['500ms', 500],
    ['1m0s', 60_000],
    ['1h2m3.5s', 3_723_500],
    ['1.5µs', 0.0015],
    ['2us', 0.002],
    ['3ns', 0.000003],
    ['.5s', 500],
    ['5.s', 5000],
    ['0', 0],
    ['0s', 0],
    ['', undefined],
    ['5', undefined],
    ['s', undefined],
    ['.s', undefined],
    ['-5s', undefined],
    ['5 s', undefined],
    ['5S', undefined],
    ['5d', undefined],
    ['5s ', undefined],
    ['1e3s', undefined],
    ['1'.repeat(100_000), undefined],
    ['1s'.repeat(50_000), undefined],
  ]
  for (const [text, ms] of durations) {
    const read = parseDurationMs(text)
    t.ok(ms === undefined ? read === undefined : Math.abs((read ?? -1) - ms) < 1e-9, text)
  }
})

interface Answer {
  status: number | undefined
  headers: IncomingHttpHeaders
  text: string
  /** Tells connections apart. */
  localPort: number | undefined
}

async function listen(server: HttpsServer): Promise<number> {
  await server.listen({ host: '127.0.0.1', port: 0 })
  return (server.server.address() as AddressInfo).port
}

function client(t: Test, port: number, ca = certificate.cert) {
  const agent = new Agent({ keepAlive: true, ca, servername: 'pullpass.pullpass.svc' })
  t.teardown(() => agent.destroy())
  return async (body: string | object): Promise<Answer> => {
    const headers = { 'content-type': 'application/json' }
    const options = { host: '127.0.0.1', port, path: '/mutate?timeout=5s', method: 'POST' }
    const sent = request({ ...options, headers, agent })
    sent.end(typeof body === 'string' ? body : JSON.stringify(body))
    const [response] = await once(sent, 'response')
    const { localPort } = response.socket
    const text = (await response.toArray()).join('')
    return { status: response.statusCode, headers: response.headers, text, localPort }
  }
}

t.test('a connection stays open longer than the API server keeps it idle, 90 s', async t => {
  const { server } = setup(t)
  const post = client(t, await listen(server))
  const first = await post(REVIEW)
  const second = await post(REVIEW)
  t.equal(first.status, 200)
  t.equal(first.headers['keep-alive'], 'timeout=120')
  t.equal(second.localPort, first.localPort, 'the second review takes the same connection')
  t.ok(server.server.requestTimeout > 0 && server.server.headersTimeout > 0)
})

t.test('a pod of 3 MB is answered over a real connection', async t => {
  const { server } = setup(t)
  const post = client(t, await listen(server))
  const object = { ...REVIEW.request.object, data: 'x'.repeat(3_000_000) }
  const large = { ...REVIEW, request: { ...REVIEW.request, object, oldObject: object } }
  t.equal((await post(large)).status, 200)
})

t.test('a refused body of several MB gets a response, not a connection reset', async t => {
  const { server } = setup(t, { state: () => 'starting' })
  const post = client(t, await listen(server))
  for (let n = 0; n < 5; n++) {
    const answer = await post(JSON.stringify(REVIEW).padEnd(3 << 20))
    t.equal(answer.status, 503)
    t.equal(answer.headers.connection, 'close')
  }
})

t.test('a review in progress is answered while the server stops', async t => {
  let answer = () => {}
  const arrived = Promise.withResolvers<void>()
  const { server } = setup(t, {
    mutatePod: async review => {
      if (review.uid !== 'slow') return leave(review)
      await new Promise<void>(resolve => {
        answer = resolve
        arrived.resolve()
      })
      return leave(review)
    },
  })
  const port = await listen(server)
  const post = client(t, port)
  const slow = post({ ...REVIEW, request: { ...REVIEW.request, uid: 'slow' } })
  await arrived.promise
  const stopped = stopServer(server, 10_000)
  await until(() => !server.server.listening)
  await t.rejects(client(t, port)(REVIEW), { code: 'ECONNREFUSED' }, 'no new connection')
  answer()
  const { status, headers } = await slow
  t.equal(status, 200)
  t.equal(headers.connection, 'close')
  await stopped
})

t.test(
  'a review that arrives on an open connection while the server stops is answered',
  async t => {
    const { server } = setup(t)
    const port = await listen(server)
    const ca = certificate.cert
    const socket = connectTls({ host: '127.0.0.1', port, ca, servername: 'pullpass.pullpass.svc' })
    t.teardown(() => socket.destroy())
    await once(socket, 'secureConnect')
    const stopped = stopServer(server, 10_000)
    await until(() => !server.server.listening)
    const body = JSON.stringify(REVIEW)
    socket.write('POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n')
    socket.write(`content-length: ${body.length}\r\n\r\n${body}`)
    const answer = (await socket.toArray()).join('')
    t.match(answer, /^HTTP\/1\.1 200 /)
    t.match(answer, /^connection: close/im)
    await stopped
  },
)

t.test('silent clients do not prevent the server from stopping', async t => {
  const { server } = setup(t)
  const port = await listen(server)
  const ca = certificate.cert
  const servername = 'pullpass.pullpass.svc'
  const silent = connectTls({ host: '127.0.0.1', port, ca, servername })
  const half = connectTls({ host: '127.0.0.1', port, ca, servername })
  for (const socket of [silent, half]) socket.on('error', () => {})
  await Promise.all([once(silent, 'secureConnect'), once(half, 'secureConnect')])
  half.write('POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{')
  const began = performance.now()
  await stopServer(server, 100)
  t.ok(performance.now() - began < 2000)
})

t.test('an unused connection is closed soon', async t => {
  const { server } = setup(t)
  const port = await listen(server)
  const ca = certificate.cert
  const silent = connectTls({ host: '127.0.0.1', port, ca, servername: 'pullpass.pullpass.svc' })
  await once(silent, 'secureConnect')
  const began = performance.now()
  await stopServer(server, 10_000)
  t.ok(performance.now() - began < 3000)
})

t.test('a new certificate is served without a restart, an unusable one is not', async t => {
  const { server } = setup(t)
  const port = await listen(server)
  const before = client(t, port)
  t.equal((await before(REVIEW)).status, 200)
  const next = await makeCertificate()
  replaceCertificate(server, next)
  t.equal((await client(t, port, next.cert)(REVIEW)).status, 200)
  t.equal((await before(REVIEW)).status, 200, 'a live connection goes on')
  await t.rejects(client(t, port)(REVIEW), /certificate/)

  t.throws(() => replaceCertificate(server, { key: next.key, cert: 'no certificate' }))
  t.throws(() => replaceCertificate(server, { key: certificate.key, cert: next.cert }))
  t.equal((await client(t, port, next.cert)(REVIEW)).status, 200)
})

t.test('invalid TLS or HTTP from clients is counted and affects no other client', async t => {
  const { server, log, metrics } = setup(t)
  const port = await listen(server)
  const failed = async () => {
    const { values } = (await metrics
      .getSingleMetric('pullpass_admission_failed_handshakes_total')
      ?.get()) ?? { values: [] }
    return values[0]?.value
  }
  await t.rejects(client(t, port, (await makeCertificate()).cert)(REVIEW), /certificate/)
  const plain = connect(port, '127.0.0.1')
  plain.on('error', () => {})
  plain.end('GET / HTTP/1.1\r\n\r\n')
  await once(plain.resume(), 'close')
  await until(async () => (await failed()) === 2)

  const servername = 'pullpass.pullpass.svc'
  for (const nonsense of [
    'nonsense\r\n\r\n',
    'POST /%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
    `POST /mutate HTTP/1.1\r\nhost: x\r\nx: ${'x'.repeat(100_000)}\r\n\r\n`,
    'POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n',
  ]) {
    const socket = connectTls({ host: '127.0.0.1', port, ca: certificate.cert, servername })
    socket.on('error', () => {})
    let received = ''
    socket.on('data', data => {
      received += data
    })
    socket.write(nonsense)
    await until(() => socket.closed)
    t.match(received, /^(HTTP\/1\.1 4\d\d |$)/, 'refused, or cut')
  }
  t.equal((await client(t, port)(REVIEW)).status, 200)
  t.strictSame(log, [])
})

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise(resolve => setTimeout(resolve, 5))
}

import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import pino from 'pino'
import { Registry } from 'prom-client'
import { generate } from 'selfsigned'
import t from 'tap'
import { createFairQueue } from '../../src/webhook/fair-queue.ts'
import { replaceCertificate, stopServer } from '../../src/webhook/https-server.ts'
import { imagesOf } from '../../src/webhook/pod.ts'
import { allowed } from '../../src/webhook/response.ts'
import type { Review } from '../../src/webhook/review.ts'
import { buildWebhookServer, webhookLimits } from '../../src/webhook/server.ts'

type Test = Pick<typeof t, 'teardown'>

const servername = 'pullpass.pullpass.svc'
const made = await generate([{ name: 'commonName', value: 'pullpass' }], {
  algorithm: 'sha256',
  keyType: 'ec',
  extensions: [
    { name: 'basicConstraints', cA: true },
    { name: 'subjectAltName', altNames: [{ type: 2, value: servername }] },
  ],
})
const certificate = { key: made.private, cert: made.cert }

const leave = async ({ uid }: Pick<Review, 'uid'>) => ({
  answer: allowed(uid, { action: 'leave', reason: 'no_private_image' as const }),
  outcome: 'no_private_image',
})

interface Setup {
  limits?: {
    connections?: Partial<typeof webhookLimits.connections>
    bodies?: Partial<typeof webhookLimits.bodies>
    queue?: Partial<typeof webhookLimits.queue>
  }
  mutatePod?: (review: Review, budgetMs: number) => ReturnType<typeof leave>
}

/** A server that listens on 127.0.0.0/8, and clients that come from any address of it. */
async function setup(t: Test, { limits = {}, mutatePod = leave }: Setup = {}) {
  const metrics = new Registry()
  const log: string[] = []
  const options = {
    mutatePod,
    state: () => 'serving' as const,
    certificate,
    logger: pino({}, { write: line => void log.push(line) }),
    metrics,
  }
  const server = buildWebhookServer(options, {
    connections: { ...webhookLimits.connections, ...limits.connections },
    bodies: { ...webhookLimits.bodies, ...limits.bodies },
    queue: { ...webhookLimits.queue, ...limits.queue },
  })
  t.teardown(() => stopServer(server, 0))
  await server.listen({ host: '0.0.0.0', port: 0 })
  const { port } = server.server.address() as AddressInfo
  const keep = <S extends Socket>(socket: S) => {
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
    return socket
  }
  const openTcp = (localAddress = '127.0.0.1') =>
    keep(connect({ host: '127.0.0.1', port, localAddress }))
  const open = async (localAddress = '127.0.0.1', more = {}) => {
    const socket = openTcp(localAddress)
    const secure = connectTls({ socket, ca: certificate.cert, servername, ...more })
    keep(secure)
    await once(secure, 'secureConnect')
    return secure
  }
  const count = async (name: string, label: string) => {
    const text = await metrics.getSingleMetricAsString(`pullpass_admission_${name}_total`)
    return Number(new RegExp(`="${label}"} (\\d+)`).exec(text)?.[1])
  }
  return { server, log, open, openTcp, count }
}

function reviewText(uid = 'uid-1', more = ''): string {
  return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"${uid}",
    "kind":{"group":"","version":"v1","kind":"Pod"},"namespace":"shop","operation":"CREATE",
    "object":{"metadata":{"name":"web-1"},"spec":{"containers":[{"image":"nginx"}]}${more}}}}`
}

function head(headers: string): string {
  return `POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${headers}\r\n\r\n`
}

function post(body: string): string {
  return `${head(`content-length: ${Buffer.byteLength(body)}`)}${body}`
}

/** The status of the next answer; undefined where the connection ends without one. */
async function statusOf(socket: Socket): Promise<number | undefined> {
  let text = ''
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    text += chunk
    const length = /content-length: (\d+)/i.exec(text)?.[1]
    const end = text.indexOf('\r\n\r\n')
    if (end >= 0 && text.length >= end + 4 + Number(length ?? 0)) break
  }
  const status = /^HTTP\/1\.1 (\d+)/.exec(text)?.[1]
  return status === undefined ? undefined : Number(status)
}

async function ask(socket: TLSSocket, body = reviewText()): Promise<number | undefined> {
  socket.write(post(body))
  return statusOf(socket)
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise(resolve => setTimeout(resolve, 5))
}

/** Resolves when the server closed the connection. */
async function closed(socket: Socket): Promise<void> {
  socket.resume()
  if (!socket.closed) await once(socket, 'close')
}

t.test('a pod of 1.4 MiB that Go encodes as 9 MiB is answered', async t => {
  const images: string[][] = []
  const { open } = await setup(t, {
    mutatePod: review => {
      images.push(imagesOf(review.pod))
      return leave(review)
    },
  })
  const body = reviewText('uid-1', `,"env":"${'\\u003c'.repeat(1_500_000)}"`)
  t.equal(await ask(await open(), body), 200)
  t.strictSame(images, [['nginx']])
})

t.test('a body with more structure than a pod can have is refused', async t => {
  const { open, count, log } = await setup(t)
  for (const part of ['{},', '[],', '"a":1,', ':::']) {
    const body = `{"a":[${part.repeat(1_100_000)}`
    const socket = await open()
    socket.write(post(body))
    t.equal(await statusOf(socket), 413, part)
  }
  const images = '{"image":"a"},'.repeat(250_000)
  t.equal(
    await ask(await open(), reviewText('u').replace('{"image":"nginx"}', `${images}{}`)),
    413,
    'and one with more images than fit',
  )
  t.equal(await count('reviews', 'too_large'), 5)
  t.strictSame(log, [])
})

t.test('a body that is announced as too long or compressed is refused early', async t => {
  const { open, count } = await setup(t)
  const long = await open()
  long.write(head(`content-length: ${(12 << 20) + 1}`))
  t.equal(await statusOf(long), 413)
  for (const encoding of ['gzip', 'br', 'deflate', 'nonsense']) {
    const socket = await open()
    socket.write(head(`content-encoding: ${encoding}\r\ncontent-length: 10`))
    t.equal(await statusOf(socket), 415)
  }
  t.equal(await count('reviews', 'unusable_review'), 4)
})

t.test('a chunked body has the same size limit', async t => {
  const { open } = await setup(t, { limits: { bodies: { bytes: 100_000 } } })
  const socket = await open()
  socket.write(head('transfer-encoding: chunked'))
  for (let n = 0; n < 11; n++) socket.write(`2710\r\n${' '.repeat(10_000)}\r\n`)
  t.equal(await statusOf(socket), 413)
})

t.test('a small review is answered while large ones are parsed and wait', async t => {
  const order: string[] = []
  const { open } = await setup(t, {
    mutatePod: review => {
      order.push(review.uid)
      return leave(review)
    },
  })
  const large = `,"a":[${'{},'.repeat(500_000)}{}]`
  const sockets = await Promise.all([1, 2, 3].map(n => open(`127.0.0.${n}`)))
  const answers = sockets.map((socket, n) => ask(socket, reviewText(`large-${n}`, large)))
  await until(() => order.length > 0)
  t.equal(await ask(await open('127.0.0.9'), reviewText('small')), 200)
  t.strictSame(await Promise.all(answers), [200, 200, 200])
  t.not(order.at(-1), 'small', `it did not wait for all of them: ${order}`)
})

t.test('a slow large body is closed when another one waits, and not earlier', async t => {
  const { open, count } = await setup(t, {
    limits: { bodies: { smallBytes: 1000, slowAfterMs: 100, bytesPerSecond: 1e9 } },
  })
  const slow = await open()
  slow.write(head('content-length: 100000'))
  slow.write(' '.repeat(2000))
  await new Promise(resolve => setTimeout(resolve, 500))
  t.notOk(slow.closed, 'nobody waits for it')
  const next = ask(await open('127.0.0.2'), reviewText('u', `,"a":"${'x'.repeat(5000)}"`))
  await closed(slow)
  t.equal(await next, 200)
  t.equal(await count('connections_closed', 'large_body_too_slow'), 1)
  await until(async () => (await count('reviews', 'cut_off')) === 1)
})

t.test('of unfinished bodies, those of the address with most bytes are closed', async t => {
  const { open, count } = await setup(t, { limits: { bodies: { bytesInAll: 100_000 } } })
  const honest = await open('127.0.0.2')
  const body = reviewText()
  honest.write(post(body).slice(0, -10))
  const greedy: TLSSocket[] = []
  for (let n = 0; n < 6; n++) {
    const socket = await open('127.0.0.1')
    socket.write(head('content-length: 100000'))
    socket.write(' '.repeat(30_000))
    greedy.push(socket)
  }
  await until(async () => (await count('connections_closed', 'too_many_bytes')) >= 2)
  await closed(greedy[0] as TLSSocket)
  honest.write(body.slice(-10))
  t.equal(await statusOf(honest), 200)
  t.notOk(greedy.at(-1)?.closed, 'the last one to begin is still there')
})

t.test('a body in many small pieces counts with the memory it takes', async t => {
  const { open, count } = await setup(t, { limits: { bodies: { bytesInAll: 100_000 } } })
  const socket = await open()
  socket.write(head('transfer-encoding: chunked'))
  for (let n = 0; n < 20; n++) socket.write('1\r\n \r\n'.repeat(100))
  await closed(socket)
  t.equal(await count('connections_closed', 'too_many_bytes'), 1)
})

t.test('above the limit, the oldest connection of the busiest address is closed', async t => {
  const { open, openTcp, count } = await setup(t, {
    limits: { connections: { connections: 4, connectionsAtMost: 4 } },
  })
  const honest = await open('127.0.0.2')
  t.equal(await ask(honest), 200)
  const first = openTcp()
  await once(first, 'connect')
  const others = [await open(), await open()]
  t.equal(await ask(await open('127.0.0.3')), 200, 'a new one is not refused')
  await closed(first)
  t.equal(await count('connections_closed', 'too_many_connections'), 1)
  t.equal(await ask(honest), 200, 'an idle connection of another address is kept')
  t.notOk(others.some(socket => socket.closed))
})

t.test('a connection whose review is being answered is not closed', async t => {
  const answer = Promise.withResolvers<void>()
  const { open } = await setup(t, {
    limits: { connections: { connections: 2, connectionsAtMost: 2 } },
    mutatePod: async review => {
      if (review.uid === 'slow') await answer.promise
      return leave(review)
    },
  })
  const slow = [await open(), await open()]
  const answers = slow.map(socket => ask(socket, reviewText('slow')))
  await new Promise(resolve => setTimeout(resolve, 50))
  for (let n = 0; n < 5; n++) t.equal(await ask(await open('127.0.0.2')), 200)
  answer.resolve()
  t.strictSame(await Promise.all(answers), [200, 200])
})

t.test('below the hard limit, only connections that waited for long are closed', async t => {
  const { open, count } = await setup(t, {
    limits: { connections: { connections: 2, connectionsAtMost: 20 } },
  })
  const sockets = await Promise.all(Array.from({ length: 10 }, () => open()))
  t.equal(await count('connections_closed', 'too_many_connections'), 0, 'many are let in')
  t.strictSame(await Promise.all(sockets.map(socket => ask(socket))), Array(10).fill(200))
})

t.test('a connection without a TLS handshake or a request is closed', async t => {
  const { open, openTcp, count } = await setup(t, {
    limits: { connections: { handshakeMs: 200, unusedMs: 2000 } },
  })
  const used = await open()
  t.equal(await ask(used), 200)
  const [silent, unused] = [openTcp(), await open()]
  const half = await open()
  half.write('POST /mut')
  await Promise.all([closed(silent), closed(unused), closed(half)])
  t.equal(await count('connections_closed', 'handshake_too_slow'), 1)
  t.equal(await count('connections_closed', 'never_used'), 2)
  t.equal(await ask(used), 200, 'one that was used stays')
})

t.test('a half-closed connection is closed', async t => {
  const { open, openTcp } = await setup(t)
  const plain = openTcp()
  await once(plain, 'connect')
  plain.end()
  const secure = await open()
  secure.end()
  const asking = await open()
  asking.end(head('content-length: 100'))
  await Promise.all([closed(plain), closed(secure), closed(asking)])
})

t.test('a request that is sent before the previous response ends the connection', async t => {
  const { open, count } = await setup(t, { mutatePod: () => new Promise(() => {}) })
  const socket = await open()
  socket.write(post(reviewText()).repeat(50))
  await closed(socket)
  t.equal(await count('connections_closed', 'pipelined'), 1)
})

t.test('requests that are sent right after the previous response are answered', async t => {
  const { open, count } = await setup(t)
  const socket = await open()
  for (let n = 0; n < 200; n++) await ask(socket)
  t.equal(await count('reviews', 'no_private_image'), 200)
  t.equal(await count('connections_closed', 'pipelined'), 0)
})

t.test('TLS below 1.2 and renegotiation are refused, with a new certificate too', async t => {
  const { server, open } = await setup(t)
  const order: string[] = []
  for (const round of ['first', 'second']) {
    await t.rejects(open('127.0.0.1', { minVersion: 'TLSv1', maxVersion: 'TLSv1.1' }), round)
    const socket = await open('127.0.0.1', { maxVersion: 'TLSv1.2' })
    socket.renegotiate({}, error => order.push(error ? 'refused' : 'renegotiated'))
    await t.rejects(ask(socket), { code: 'EPROTO' }, 'the connection ends')
    replaceCertificate(server, certificate)
  }
  t.notOk(order.includes('renegotiated'), 'no second handshake')
  t.equal(await ask(await open()), 200)
})

t.test('addresses are served in turn, and each has a limited queue', async t => {
  const order: string[] = []
  const queue = createFairQueue({ perAddress: 100, inAll: 150, perSecond: 1000, atOnce: 200 })
  const add = (address: string) => queue.add(address, () => void order.push(address))
  const taken = Array.from({ length: 200 }, () => add('many')).filter(Boolean)
  t.equal(taken.length, 100)
  t.ok(add('few') && add('few'))
  const others = Array.from({ length: 60 }, (_, n) => add(`other-${n}`)).filter(Boolean)
  t.equal(others.length, 48, 'the queue is bounded in all')
  await until(() => order.length === 150)
  t.strictSame(order.slice(0, 2), ['many', 'few'])
  t.ok(order.lastIndexOf('few') < 60, 'nobody waits for all of the others')
})

t.test('slow requests do not block the event loop for others', async t => {
  const order: string[] = []
  const queue = createFairQueue({ perAddress: 100, inAll: 150, perSecond: 1000, atOnce: 200 })
  const workOn = (name: string) => {
    const until = performance.now() + 5
    while (performance.now() < until);
    order.push(name)
  }
  for (const name of ['first', 'second', 'third']) queue.add('address', () => workOn(name))
  const others = setInterval(() => order.push('other'), 1)
  t.teardown(() => clearInterval(others))
  await until(() => order.includes('third'))
  t.ok(order.slice(0, order.indexOf('second')).includes('other'))
  t.ok(order.slice(order.indexOf('second'), order.indexOf('third')).includes('other'))
})

t.test('an address that asks too often waits, and others do not', async t => {
  const order: string[] = []
  const queue = createFairQueue({ perAddress: 100, inAll: 150, perSecond: 50, atOnce: 10 })
  const began = performance.now()
  for (let n = 0; n < 20; n++) queue.add('often', () => void order.push('often'))
  await until(() => order.length >= 10)
  queue.add('seldom', () => void order.push('seldom'))
  await until(() => order.length === 21)
  t.ok(order.indexOf('seldom') < 20, 'the other one is not the last')
  t.ok(performance.now() - began >= 180, 'ten more requests take a fifth of a second')
})

t.test('a request beyond the queue limit gets a response that asks for a retry', async t => {
  const { open, count } = await setup(t, { limits: { queue: { perAddress: 0 } } })
  const socket = await open()
  socket.write(post(reviewText()))
  const answer = (await socket.toArray()).join('')
  t.match(answer, /^HTTP\/1\.1 429 /)
  t.match(answer, /^retry-after: 1\r$/im)
  t.match(answer, /^connection: close\r$/im)
  t.equal(await count('reviews', 'too_many'), 1)
})

t.test('the time for a review is at most the longest webhook timeout', async t => {
  const budgets: number[] = []
  const { open } = await setup(t, {
    mutatePod: (review, budgetMs) => {
      budgets.push(budgetMs)
      return leave(review)
    },
  })
  const socket = await open()
  for (const timeout of ['1000000s', '24h', '1ms', '0.3ms', '1ns']) {
    socket.write(post(reviewText()).replace('/mutate', `/mutate?timeout=${timeout}`))
    t.equal(await statusOf(socket), 200)
  }
  t.ok(
    budgets.every(ms => Number.isInteger(ms) && ms >= 0 && ms <= 29_000),
    `${budgets}`,
  )
})

t.test('a decided review is answered even if counters and logger fail', async t => {
  const metrics = new Registry()
  const fail = () => {
    throw new Error('s3cret')
  }
  const server = buildWebhookServer({
    mutatePod: async review => ({ ...(await leave(review)), outcome: {} as string }),
    state: () => 'serving',
    certificate,
    logger: { info: fail, error: fail, debug: fail, warn: fail } as never,
    metrics,
  })
  t.teardown(() => stopServer(server, 0))
  const counter = metrics.getSingleMetric('pullpass_admission_reviews_total') as unknown as object
  Object.assign(counter, { inc: fail })
  const headers = { 'content-type': 'application/json' }
  const request = { method: 'POST', url: '/mutate', headers, payload: reviewText() } as const
  t.equal((await server.inject(request)).statusCode, 200)
})

import { TLSSocket } from 'node:tls'
import { gzipSync } from 'node:zlib'
import { image, pod, reviewOf } from '../e2e/pods.ts'
import type { Attacker, Connection } from './attacker.ts'

/**
 * What one connection of the attack does: it is opened, and used until it is closed or the
 * attack is over. It is called again and again; `lane` numbers the connections.
 */
type Attack = (attacker: Attacker, lane: number) => Promise<void>

const KIB = 1 << 10
const MIB = 1 << 20

/**
 * | attack             | target                                                                   |
 * |--------------------|--------------------------------------------------------------------------|
 * | large              | memory, by bodies around each limit, and over it                         |
 * | deep, wide, …      | memory and time of JSON.parse, which grow with the structure             |
 * | duplicate keys, …  | keys that JSON.parse treats in a way of their own                        |
 * | chunked            | bodies without a known length, in pieces of one byte                     |
 * | slow …, idle, half | connections and partial bodies that are kept for long                    |
 * | pipelined          | a connection that sends more than its share and does not read            |
 * | many namespaces    | an entry and an API read for each name                                   |
 * | … timeouts         | timers, and decisions without time                                       |
 * | the others         | the protocol: not HTTP/1.1, not TLS, repeated handshakes, false headers  |
 */
export const attacks: Record<string, Attack> = {
  large: postEach(() => [12 * MIB, 256 * KIB, 4 * MIB - KIB, 13 * MIB, MIB].map(large)),
  deep: postEach(() => sizes.flatMap(size => [nested('[', ']', size), nested('{"a":', '}', size)])),
  wide: postEach(() => sizes.map(size => repeated('[', '{}', size, ']'))),
  'many keys': postEach(() => sizes.map(manyKeys)),
  'duplicate keys': postEach(() => [
    ...sizes.map(size => repeated('{', '"a":0', size, '}')),
    Buffer.from(review('"no object"').toString().replace('{', '{"request":{"uid":"first"},')),
  ]),
  // In brackets; otherwise it would set the prototype of this object.
  ['__proto__']: postEach(() => [
    ...sizes.map(size => nested('{"__proto__":', '}', size)),
    review('{"constructor":{"prototype":{"polluted":true}},"__proto__":{"polluted":true}}'),
    Buffer.from(review('{}').toString().replace('"request"', '"__proto__"')),
  ]),
  chunked,
  'slow headers': slowHeaders,
  'slow bodies': slowBodies(),
  'idle connections': async (attacker, lane) => {
    await (await (lane % 2 === 0 ? attacker.tls() : attacker.tcp())).closed()
  },
  'half-closed': halfClosed,
  pipelined,
  'many namespaces': askAbout(() => '?timeout=5s'),
  'tiny timeouts': askAbout(turn => `?timeout=${['1ms', '1ns', '0', '0.5ms'][turn % 4]}`),
  'huge timeouts': askAbout(turn => `?timeout=${['1000000s', '9999999h', '30s'][turn % 3]}`),
  'HTTP/2 preface': http2Preface,
  'plain HTTP': async attacker => {
    const connection = await attacker.tcp()
    await connection.send(request(review('{}')))
    await endOf(connection)
  },
  renegotiation,
  'gzip-declared': postEach(
    () => [gzipSync(Buffer.alloc(32 * MIB, ' ')), large(64 * KIB), gzipSync(large(2 * MIB))],
    'Content-Encoding: gzip\r\n',
  ),
}

/** The largest body is the first, so that a single connection sends it too. */
const sizes = [8 * MIB, 4 * MIB - KIB, MIB, 64 * KIB]

/** Posts the bodies in turn, over as many connections as it takes. */
function postEach(make: () => Buffer[], header = ''): Attack {
  let requests: Buffer[] | undefined
  let turn = 0
  return async attacker => {
    requests ??= make().map(body => request(body, { header }))
    const connection = await attacker.tls()
    while (connection.open) {
      const next = requests[turn++ % requests.length] as Buffer
      if (!(await connection.send(next)) || !(await connection.answer())) break
    }
    await endOf(connection)
  }
}

/** Asks about a new namespace after each answer. */
function askAbout(query: (turn: number) => string): Attack {
  const text = review(JSON.stringify(pod('web')), 'a-name-of-32-characters-in-place').toString()
  const [before = '', after = ''] = text.split('a-name-of-32-characters-in-place')
  let turn = 0
  return async attacker => {
    const connection = await attacker.tls()
    while (connection.open) {
      const name = `made-up-${(turn++).toString().padStart(24, '0')}`
      const asked = request(Buffer.from(before + name + after), { query: query(turn) })
      if (!(await connection.send(asked)) || !(await connection.answer())) break
    }
  }
}

/** Chunks of one byte with an extension; an endless body; and both length headers (request smuggling). */
async function chunked(attacker: Attacker, lane: number): Promise<void> {
  const connection = await attacker.tls()
  const header = `Transfer-Encoding: chunked\r\n${lane % 3 === 2 ? 'Content-Length: 5\r\n' : ''}`
  await connection.send(`POST /mutate?timeout=5s HTTP/1.1\r\n${COMMON}${header}\r\n`)
  const extension = lane % 3 === 0 ? `;${'x'.repeat(200)}` : ''
  const size = lane % 3 === 1 ? 60 * KIB : 1
  const chunk = `${size.toString(16)}${extension}\r\n${'['.repeat(size)}\r\n`
  const piece = Buffer.from(chunk.repeat(Math.ceil((30 * KIB) / chunk.length)))
  while (await connection.send(piece));
}

async function slowHeaders(attacker: Attacker, lane: number): Promise<void> {
  const connection = await attacker.tls()
  await connection.send(`POST /mutate?timeout=5s HTTP/1.1\r\n${lane % 2 === 0 ? COMMON : ''}`)
  while (await connection.send(lane % 2 === 0 ? 'X-Slow: yes\r\n' : 'X')) await attacker.pause(500)
}

/** Sends all but the end of a body as fast as possible. */
function slowBodies(): Attack {
  let requests: Buffer[] | undefined
  return async (attacker, lane) => {
    requests ??= [4 * MIB - KIB, MIB, 12 * MIB].map(size => request(large(size)))
    await sendSlowly(await attacker.tls(), requests[lane % requests.length] as Buffer, attacker)
  }
}

async function sendSlowly(
  connection: Connection,
  whole: Buffer,
  attacker: Attacker,
): Promise<void> {
  await connection.send(whole.subarray(0, -100))
  for (let at = whole.length - 100; at < whole.length; at++) {
    if (!(await connection.send(whole.subarray(at, at + 1)))) return
    await attacker.pause(500)
  }
}

/** Closes its own side after a whole request, in the middle of a body, or before any. */
async function halfClosed(attacker: Attacker, lane: number): Promise<void> {
  const connection = await attacker.tls({ allowHalfOpen: true })
  const whole = request(review(JSON.stringify(pod('web'))))
  await connection.send(whole.subarray(0, whole.length * ([1, 0.9, 0][lane % 3] as number)))
  connection.socket.end()
  await endOf(connection)
}

/** Every other lane does not read the answers. */
async function pipelined(attacker: Attacker, lane: number): Promise<void> {
  const connection = await attacker.tls()
  if (lane % 2 === 1) connection.socket.pause()
  const many = Buffer.concat(Array(100).fill(request(review(JSON.stringify(pod('web'))))))
  while (await connection.send(many));
}

/** Every other lane has agreed on it by ALPN, if the server agrees. */
async function http2Preface(attacker: Attacker, lane: number): Promise<void> {
  const connection = await attacker.tls(lane % 2 === 0 ? { ALPNProtocols: ['h2'] } : {})
  const settings = Buffer.from('000000040000000000', 'hex')
  const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  await connection.send(Buffer.concat([preface, ...Array(1000).fill(settings)]))
  await endOf(connection)
}

async function renegotiation(attacker: Attacker): Promise<void> {
  const connection = await attacker.tls({ maxVersion: 'TLSv1.2' })
  const { socket } = connection
  while (connection.open && socket instanceof TLSSocket) {
    const done = new Promise<unknown>(resolve => socket.renegotiate({}, resolve))
    if (await Promise.race([done, connection.closed()])) break
  }
  await endOf(connection)
}

/** Waits until the server closes the connection. After one second, the attacker closes it and continues. */
async function endOf(connection: Connection): Promise<void> {
  const timer = setTimeout(() => connection.socket.destroy(), 1000)
  await connection.closed()
  clearTimeout(timer)
}

const COMMON = 'Host: 127.0.0.1\r\nContent-Type: application/json\r\n'

function request(body: Buffer, { header = '', query = '?timeout=5s' } = {}): Buffer {
  const head = `POST /mutate${query} HTTP/1.1\r\n${COMMON}${header}Content-Length: ${body.length}`
  return Buffer.concat([Buffer.from(`${head}\r\n\r\n`), body])
}

/** The review of a pod's creation whose object is this JSON, in a namespace that is opted in. */
function review(object: string, namespace = 'steady-0'): Buffer {
  const text = JSON.stringify(reviewOf(namespace, 'the object'))
  return Buffer.from(text.replace('"the object"', () => object))
}

/** A complete pod that needs the reference, with about `size` bytes. */
function large(size: number): Buffer {
  const spec = { containers: [{ name: 'main', image }] }
  const metadata = { annotations: { filling: '<'.repeat(size - 800) } }
  return review(JSON.stringify(pod('large', spec, metadata)))
}

function repeated(start: string, part: string, size: number, end: string): Buffer {
  const times = Math.floor((size - 800) / (part.length + 1))
  return junk(`${start}${`${part},`.repeat(times)}${part}${end}`)
}

function nested(start: string, end: string, size: number): Buffer {
  const times = Math.floor((size - 800) / (start.length + end.length))
  return junk(`${start.repeat(times)}0${end.repeat(times)}`)
}

function manyKeys(size: number): Buffer {
  const keys: string[] = []
  for (let key = 0, length = 800; length < size; key++) {
    length += keys.push(`"key${key}":0`) > 0 ? `"key${key}":0,`.length : 0
  }
  return junk(`{${keys.join()}}`)
}

/** A review of a pod with this JSON in an unknown field. */
function junk(json: string): Buffer {
  const spec = JSON.stringify(pod('junk')).replace('"spec":{', () => `"spec":{"junk":${json},`)
  return review(spec)
}

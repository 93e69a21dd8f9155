import type { Server } from 'node:https'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'
import Fastify, { type FastifyReply } from 'fastify'
import { reset } from '../../reset.ts'
import type { Fault, Faults, Operation } from '../faults.ts'
import type { Hooks, RequestEvent, Verdict } from '../hooks.ts'
import type { RequestEntry } from '../ledger.ts'
import type { World } from '../world.ts'
import { failureAnswer } from './failures.ts'
import type { App, Request } from './request.ts'

interface Door {
  world: World
  faults: Faults
  hooks: Hooks
}

export interface FrontDoor {
  /** Takes a connection, before its TLS handshake. */
  accept(client: Socket): void
  /** Resets all connections. */
  reset(): void
  stop(): Promise<void>
}

interface Arrived extends Request {
  event: RequestEvent
  entry: RequestEntry
  /** Whether no fault came before the work. */
  isHandled: boolean
}

/** By remote port: a TLS socket cannot be reset, only the one under it. */
type Clients = Map<number | undefined, Socket>

/** One HTTPS server for all hosts of the environment; it listens nowhere itself. */
export async function openFrontDoor(
  door: Door,
  tls: { key: string; cert: string },
  addServices: (app: App) => void,
): Promise<FrontDoor> {
  const clients: Clients = new Map()
  const app = createApp(tls)
  addHooks(app, door, clients)
  addServices(app)
  await app.ready()
  const resetAll = () => {
    for (const client of clients.values()) reset(client)
  }
  return {
    accept: client => {
      const { remotePort } = client
      clients.set(remotePort, client)
      client.once('close', () => clients.delete(remotePort))
      app.server.emit('connection', client)
    },
    reset: resetAll,
    stop: async () => {
      resetAll()
      await app.close()
    },
  }
}

function createApp(tls: { key: string; cert: string }): App {
  const app = Fastify<Server>({
    https: tls,
    bodyLimit: 64 * 1024,
    exposeHeadRoutes: false,
    keepAliveTimeout: 65_000,
    routerOptions: { querystringParser: query => new URLSearchParams(query) as never },
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => done(null, body))
  app.setNotFoundHandler((_request, reply) => reply.code(404).send('404 page not found\n'))
  app.setErrorHandler((error: Error & { statusCode?: number }, _request, reply) => {
    const { statusCode = 500 } = error
    if (statusCode === 500) process.emitWarning(error)
    return reply.code(statusCode).send(`${error.message}\n`)
  })
  return app
}

/**
 * A request is recorded (`onRequest`), listeners are called and faults may come before its handler
 * (`preHandler`), or change its answer (`onSend`).
 */
function addHooks(app: App, door: Door, clients: Clients): void {
  for (const name of ['event', 'entry', 'isHandled', 'fault', 'now'])
    app.decorateRequest(name, null)
  app.addHook('onRequest', async (request, reply) => record(door, request as Arrived, reply))
  app.addHook('preHandler', async (request, reply) => prepare(door, request as Arrived, reply))
  app.addHook('preSerialization', async (request, reply, json) => {
    shape(door, request as Arrived, reply)
    return json
  })
  app.addHook('onSend', async (request, reply, payload) => {
    const client = clients.get(reply.raw.socket?.remotePort)
    return finish(door, client, {
      request: request as Arrived,
      reply,
      payload: payload as Payload,
    })
  })
}

/** The Host header decides, and must be the server name of the TLS connection. */
async function record({ world }: Door, request: Arrived, reply: FastifyReply) {
  const host = request.hostname
  const { servername } = request.raw.socket as TLSSocket
  if (host !== servername || !Object.values(world.hosts).includes(host)) {
    return reply.code(421).send('this server does not simulate that host\n')
  }
  const { ledger, clock } = world
  const { operation } = (request.routeOptions.config ?? {}) as { operation?: Operation }
  const [path = ''] = request.url.split('?')
  const sequence = ledger.nextSequence()
  request.event = { sequence, operation, method: request.method, host, path, status: undefined }
  request.entry = ledger.request({ ...request.event, at: clock.now(), bytes: 0 })
  if (operation === 'login') reply.raw.once('close', ledger.enterLogin())
  return undefined
}

async function prepare(door: Door, request: Arrived, reply: FastifyReply) {
  const { faults, hooks, world } = door
  const { operation } = request.event
  const verdict = await hooks.emit('beforeRequest', request.event)
  const organization = world.directory.organizationByGuid(request.headers.organization)
  const fault = faults.draw(operation, organization?.name)
  request.fault = verdict === 'drop' || fault.down ? { fail: 'reset' } : fault
  request.now = world.clock.now() + (fault.clockSkewMs ?? 0)
  await pause(request.fault.latencyMs)
  if (failsWhole(request.fault) && request.fault.when !== 'after') return reply.send()
  request.isHandled = true
  return undefined
}

/** Indented by four spaces, as in the procedure of 2017. */
function shape({ world: { settings } }: Door, { fault }: Arrived, reply: FastifyReply): void {
  const { prettyPrint = settings.prettyPrint, paddingBytes = 0 } = fault
  reply.serializer((json: unknown) => {
    const text = prettyPrint ? `${JSON.stringify(json, null, 4)}\n` : JSON.stringify(json)
    return text + ' '.repeat(paddingBytes)
  })
}

/** For the others, the work is done, and only the body of the answer is damaged. */
function failsWhole({ fail }: Fault): boolean {
  return fail !== undefined && fail !== 'truncated' && fail !== 'cut'
}

type Payload = string | Readable | undefined

interface Answering {
  request: Arrived
  reply: FastifyReply
  payload: Payload
}

async function finish(
  door: Door,
  client: Socket | undefined,
  { request, reply, payload }: Answering,
): Promise<unknown> {
  const { fault, event, entry, now } = request
  // A host that is not simulated, or a body over the limit.
  if (!fault) return payload
  const done = { ...event, status: reply.statusCode }
  const verdict = request.isHandled ? await emitDone(door, done) : undefined
  await pause(fault.answerLatencyMs)
  if (verdict === 'drop' || fault.fail === 'reset') {
    if (client !== undefined) reset(client)
    return payload
  }
  const failure = failureAnswer(fault.fail, request, event.operation)
  if (failure !== undefined) {
    for (const name of Object.keys(reply.getHeaders())) reply.removeHeader(name)
    reply.code(failure.status).headers(failure.headers)
  }
  entry.status = reply.statusCode
  countBytes(entry, reply)
  reply.header('date', new Date(now).toUTCString())
  return damaged(failure?.body ?? payload, fault, reply)
}

async function emitDone({ hooks }: Door, event: RequestEvent): Promise<Verdict> {
  const { operation, status = 500 } = event
  const first = operation && status < 300 ? await hooks.emit(operation, event) : undefined
  return (await hooks.emit('afterRequest', event)) ?? first
}

/** The response loses its socket when it is complete. */
function countBytes(entry: RequestEntry, { raw }: FastifyReply): void {
  const { socket } = raw
  if (socket === null) return
  const { bytesWritten } = socket
  raw.once('finish', () => {
    entry.bytes = socket.bytesWritten - bytesWritten
  })
}

/** The body of a registry behind this server is at most truncated. */
function damaged(payload: Payload, { fail, pauses }: Fault, reply: FastifyReply) {
  if (payload instanceof Readable && fail !== 'truncated') return payload
  if (payload instanceof Readable) payload.destroy()
  const whole = Buffer.from(typeof payload === 'string' ? payload : '')
  const half = whole.subarray(0, Math.floor(whole.length / 2))
  if (fail === 'truncated') {
    reply.header('content-length', Math.max(whole.length, 2))
    return Readable.from(thenEnd(half, reply.raw.socket), { objectMode: false })
  }
  const body = fail === 'cut' ? half : whole
  if (pauses === undefined) return body
  reply.header('content-length', body.length)
  return Readable.from(inPieces(body, pauses), { objectMode: false })
}

async function* thenEnd(half: Buffer, socket: Socket | null) {
  yield half
  socket?.destroySoon()
}

async function* inPieces(body: Buffer, { count, ms }: { count: number; ms: number }) {
  const size = Math.ceil(body.length / (count + 1))
  for (let from = 0; from < body.length; from += size) {
    if (from > 0) await pause(ms)
    yield body.subarray(from, from + size)
  }
}

/** Does not keep the process alive. */
async function pause(milliseconds: number | undefined): Promise<void> {
  if (milliseconds) await delay(milliseconds, undefined, { ref: false })
}

import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Failure, Faults } from '../faults.ts'
import type { Hooks, RequestEvent } from '../hooks.ts'
import type { World } from '../world.ts'
import { addressOf, bodyLimit, newEvent, organizationOf, readBody, receive } from './arrival.ts'
import { type Answer, type Handler, type Received, text } from './exchange.ts'
import { failureAnswer } from './failures.ts'
import { findRoute, type Handlers } from './routes.ts'
import { send, sendHalf } from './send.ts'

interface Door {
  world: World
  handlers: Handlers
  faults: Faults
  hooks: Hooks
  /** Resets the tunnel behind a connection. */
  reset: (port: number | undefined) => boolean
}

export interface FrontDoor {
  port: number
  stop(): Promise<void>
}

/**
 * The TLS listener for all hosts of the environment. The steps of each request are: number it, call
 * the listeners, delay it, apply a fault, handle it, call the listeners again, respond.
 */
export async function openFrontDoor(
  door: Door,
  tls: { key: string; cert: string },
): Promise<FrontDoor> {
  const closing = new AbortController()
  const server = createServer({ ...tls, ALPNProtocols: ['http/1.1'] }, (request, response) => {
    const { socket } = request
    serve(door, { request, response, signal: closing.signal }).catch((error: Error) => {
      // An error because the client has disconnected is expected; any other is not.
      if (!closing.signal.aborted && !socket.destroyed) process.emitWarning(error)
      socket.destroy()
    })
  })
  server.keepAliveTimeout = 65_000
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    stop: async () => {
      closing.abort()
      server.close()
      server.closeAllConnections()
    },
  }
}

interface Connection {
  request: IncomingMessage
  response: ServerResponse
  signal: AbortSignal
}

async function serve(door: Door, connection: Connection): Promise<void> {
  const { request, response } = connection
  // The request loses its socket when the response is complete.
  const { socket } = request
  const { url, host } = addressOf(request, door.world.hosts)
  if (!host) return send(response, text(421, 'this server does not play that host\n'), {})
  const route = findRoute(host, request.method ?? '', url.pathname)
  const event = newEvent(request, {
    url,
    operation: route?.operation,
    sequence: door.world.ledger.nextSequence(),
  })
  const entry = door.world.ledger.request({ ...event, at: door.world.clock.now(), bytes: 0 })
  if (route?.operation === 'login') response.once('close', door.world.ledger.enterLogin())
  const body = route?.operation === 'registry' ? '' : await readBody(request)
  const verdictBefore = await door.hooks.emit('beforeRequest', event)
  const received = receive(request, {
    url,
    event,
    body,
    fault: door.faults.draw(event.operation, organizationOf(request, door.world)),
    clock: door.world.clock.now(),
  })
  if (verdictBefore === 'drop' || received.fault.down) return reset(door, request)
  await pause(received.fault.latencyMs, connection)
  const { done, answer } = await work(door, received, route && door.handlers[route.handler])
  const verdict = done && (await emitDone(door, { ...event, status: done.status }, received))
  await pause(received.fault.answerLatencyMs, connection)
  if (verdict === 'drop' || !answer) return reset(door, request)
  entry.status = answer.status
  const { bytesWritten } = socket
  await reply(door, response, { answer, received })
  entry.bytes = socket.bytesWritten - bytesWritten
}

async function pause(milliseconds: number | undefined, { signal }: Connection): Promise<void> {
  if (milliseconds) await delay(milliseconds, undefined, { signal })
}

function reply(
  { world }: Door,
  response: ServerResponse,
  { answer, received: { fault, now } }: { answer: Answer; received: Received },
): Promise<void> {
  const pretty = fault.prettyPrint ?? world.settings.prettyPrint
  const write = fault.fail === 'truncated' ? sendHalf : send
  const { paddingBytes = 0, pauses } = fault
  const isCut = fault.fail === 'cut'
  return write(response, answer, { pretty, paddingBytes, pauses, isCut, date: new Date(now) })
}

/**
 * `done` is the result of handling, absent if a fault came first. `answer` is the response to the
 * client, absent if the connection is reset.
 */
async function work(
  door: Door,
  received: Received,
  handle: Handler | undefined,
): Promise<{ done?: Answer; answer: Answer | undefined }> {
  const { fail, when } = received.fault
  const fails = fail !== undefined && !isOfBody(fail)
  const failed = fails ? failureAnswer(fail, received, door.world.hosts) : undefined
  if (fails && when !== 'after') return { answer: failed }
  const done = await handled(received, handle)
  return { done, answer: fails ? failed : done }
}

/** The work is done, and only the body of the answer is damaged. */
function isOfBody(fail: Failure): boolean {
  return fail === 'truncated' || fail === 'cut'
}

function handled(received: Received, handle: Handler | undefined): Answer | Promise<Answer> {
  if (received.body.length > bodyLimit) return text(413, 'Payload Too Large')
  return handle ? handle(received) : text(404, '404 page not found\n')
}

async function emitDone(door: Door, event: RequestEvent, { operation }: Received) {
  const succeeded = operation && event.status !== undefined && event.status < 300
  const first = succeeded ? await door.hooks.emit(operation, event) : undefined
  return (await door.hooks.emit('afterRequest', event)) ?? first
}

function reset(door: Door, request: IncomingMessage): void {
  door.reset(request.socket.remotePort)
  request.socket.destroy()
}

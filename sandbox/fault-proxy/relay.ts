import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { type Agent, request as httpsRequest } from 'node:https'
import type { Socket } from 'node:net'
import { buffer, text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { reset } from '../reset.ts'

/** A request as it came to the proxy. `status` is absent while, and where, none was given. */
export interface ProxiedRequest {
  readonly method: string
  /** With the query. */
  readonly path: string
  readonly userAgent: string
  status: number | undefined
}

export interface Answer {
  status: number
  headers?: Record<string, string>
  /** A string is sent as it is, anything else as JSON. */
  body: unknown
}

/** Instead of passing on: an answer, one made of the genuine one (text), none ever, or a reset. */
export type Fault = Answer | ((genuine: Answer) => Answer) | 'swallow' | 'reset'

export type Match = (request: ProxiedRequest) => boolean

/** Called for each request; what they return is waited for. */
export interface Hooks {
  /** Nothing has reached the API server yet. */
  before?: (request: ProxiedRequest) => unknown
  /** The API server has done it, and the client has not heard of it yet. */
  after?: (request: ProxiedRequest) => unknown
}

/** What the proxy knows while it runs. */
export interface ProxyState {
  readonly target: string
  readonly agent: Agent
  readonly requests: ProxiedRequest[]
  readonly hooks: Hooks
  readonly faults: { match: Match; fault: Fault; times: number }[]
  readonly frozen: WeakSet<Socket>
  readonly streams: Set<{ request: ProxiedRequest; response: ServerResponse }>
  latencyMs: number
}

/**
 * Plays one request: passed on to the API server, streaming, unless a fault is due. Never rejects.
 */
export async function relay(
  state: ProxyState,
  incoming: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { method = 'GET', url: path = '/', headers } = incoming
  const userAgent = headers['user-agent'] ?? ''
  const request: ProxiedRequest = { method, path, userAgent, status: undefined }
  response.on('error', () => {})
  try {
    const body = await buffer(incoming)
    if (state.frozen.has(incoming.socket)) return
    state.requests.push(request)
    await state.hooks.before?.(request)
    if (state.latencyMs > 0) await sleep(state.latencyMs)
    const fault = dueFault(state, request)
    if (fault === 'swallow') return
    if (fault === 'reset') return void reset(incoming.socket)
    if (typeof fault === 'object') return send(request, response, fault)
    const genuine = await ask(state, incoming, { body, response })
    await state.hooks.after?.(request)
    if (fault === undefined) return await stream(state, genuine, { request, response })
    send(request, response, fault({ status: genuine.statusCode ?? 0, body: await text(genuine) }))
  } catch {
    // The API server is gone, or the client is: either way this connection has ended.
    response.destroy()
  }
}

function dueFault(state: ProxyState, request: ProxiedRequest): Fault | undefined {
  const due = state.faults.find(({ match, times }) => times > 0 && match(request))
  if (due) due.times -= 1
  return due?.fault
}

function send(request: ProxiedRequest, response: ServerResponse, answer: Answer): void {
  const { status, headers = {}, body } = answer
  request.status = status
  const isText = typeof body === 'string'
  response.writeHead(status, {
    'content-type': isText ? 'text/html' : 'application/json',
    ...headers,
  })
  response.end(isText ? body : JSON.stringify(body))
}

/** Compressed answers could neither be changed nor added to. */
const NOT_PASSED_ON = new Set(['connection', 'keep-alive', 'transfer-encoding', 'accept-encoding'])

function passedOn(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !NOT_PASSED_ON.has(name)))
}

function ask(
  state: ProxyState,
  incoming: IncomingMessage,
  { body, response }: { body: Buffer; response: ServerResponse },
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const url = new URL(incoming.url ?? '/', state.target)
  const { method = 'GET', headers } = incoming
  const outgoing = httpsRequest(
    url,
    { method, headers: passedOn(headers), agent: state.agent },
    resolve,
  )
  outgoing.on('error', reject)
  response.on('close', () => outgoing.destroy())
  outgoing.end(body)
  return promise
}

async function stream(
  state: ProxyState,
  genuine: IncomingMessage,
  exchange: { request: ProxiedRequest; response: ServerResponse },
): Promise<void> {
  const { request, response } = exchange
  request.status = genuine.statusCode
  state.streams.add(exchange)
  response.on('close', () => state.streams.delete(exchange))
  response.writeHead(genuine.statusCode ?? 502, passedOn(genuine.headers))
  response.flushHeaders()
  for await (const chunk of genuine) {
    if (response.socket && state.frozen.has(response.socket)) return
    response.write(chunk)
  }
  const frozen = response.socket && state.frozen.has(response.socket)
  if (!frozen) response.end()
}

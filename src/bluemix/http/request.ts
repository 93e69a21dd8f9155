import { readFile } from 'node:fs/promises'
import tls from 'node:tls'
import type { Logger } from 'pino'
import { Counter, Histogram, type Registry } from 'prom-client'
import { type Dispatcher, EnvHttpProxyAgent } from 'undici'
import { TokenError } from '../../issuer/issuer.ts'
import { type Answer, environmentFailure, record } from './answer.ts'

export interface Ask {
  /** The label of metrics: `login`, `mint`, ... */
  operation: string
  method: 'GET' | 'POST' | 'DELETE'
  url: string
  headers?: Record<string, string>
  /** Sent as application/x-www-form-urlencoded. */
  form?: Record<string, string>
  /** Everything in headers and form that must never be seen again. */
  sent: readonly string[]
  /** Default 1 MiB. */
  maxBytes?: number
}

/** Resolves with any HTTP answer; rejects with a TokenError where there was none. */
export type Request = (ask: Ask, signal: AbortSignal) => Promise<Answer>

/**
 * The one door to the environment: HTTPS only, certificates always verified, redirects never
 * followed, bodies bounded. HTTPS_PROXY and NO_PROXY are honoured. The private CA is read again
 * when it changes.
 */
export function createRequest(options: {
  caFile: string | undefined
  timeoutMs: number
  logger: Logger
  metrics: Registry
  /** Ends every request. */
  closing: AbortSignal
  /** Asked right before a request leaves: a process that stood still may have lost the right to ask. */
  mayLogIn?: (() => boolean) | undefined
}): { request: Request; close(): Promise<void> } {
  const observe = createRequestMetrics(options.metrics)
  const connections = createConnections(options)
  const { mayLogIn = () => true } = options
  const request: Request = async (ask, signal) => {
    requireHttps(ask.url)
    const dispatcher = await connections.current()
    if (!mayLogIn()) throw aborted()
    const left = AbortSignal.any([signal, options.closing])
    const timeout = AbortSignal.timeout(options.timeoutMs)
    const end = observe(ask.operation)
    try {
      const answer = await exchange(dispatcher, ask, AbortSignal.any([left, timeout]))
      end(String(answer.status))
      options.logger.debug({ operation: ask.operation, status: answer.status }, 'asked')
      return answer
    } catch (error) {
      const failure = left.aborted ? aborted() : noAnswer(error, new URL(ask.url).origin)
      end(failure.code)
      throw failure
    }
  }
  return { request, close: connections.close }
}

/** Lets one caller go while the work, which others share, goes on. */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const leave = () => reject(aborted())
  signal.addEventListener('abort', leave, { once: true })
  if (signal.aborted) leave()
  try {
    return await Promise.race([promise, work])
  } finally {
    signal.removeEventListener('abort', leave)
  }
}

async function exchange(dispatcher: Dispatcher, ask: Ask, signal: AbortSignal): Promise<Answer> {
  const url = new URL(ask.url)
  const form = ask.form && new URLSearchParams(ask.form).toString()
  const { statusCode, headers, body } = await dispatcher.request({
    origin: url.origin,
    path: url.pathname + url.search,
    method: ask.method,
    headers: {
      accept: 'application/json',
      'user-agent': 'pullpass',
      ...(form !== undefined && { 'content-type': 'application/x-www-form-urlencoded' }),
      ...ask.headers,
    },
    body: form ?? null,
    signal,
  })
  const json = parse(await readBounded(body, ask.maxBytes ?? 1024 * 1024))
  return { origin: url.origin, status: statusCode, headers, json, sent: ask.sent }
}

async function readBounded(body: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > maxBytes) throw new RangeError('answer too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}

function requireHttps(url: string): void {
  if (URL.canParse(url) && new URL(url).protocol === 'https:') return
  const shown = URL.canParse(url) ? new URL(url).origin : 'an address that is none'
  const message = `cannot send credentials to ${shown}: only https is used`
  throw environmentFailure('permanent', 'insecure_address', message)
}

/**
 * The connections to the environment, through HTTPS_PROXY where NO_PROXY does not exclude it.
 * A private CA counts beside the roots that Node trusts anyway; its file is read at each request
 * (there are few), so a renewed CA needs no restart.
 */
function createConnections(options: { caFile: string | undefined; timeoutMs: number }): {
  current(): Promise<Dispatcher>
  close(): Promise<void>
} {
  const { caFile, timeoutMs } = options
  let ca: string | undefined
  let agent: EnvHttpProxyAgent | undefined
  async function current(): Promise<Dispatcher> {
    const found = caFile === undefined ? undefined : await readCa(caFile)
    if (agent === undefined || found !== ca) {
      const former = agent
      ca = found
      agent = buildAgent(found, timeoutMs)
      // Ends by itself once its last request has ended.
      former?.close().catch(() => {})
    }
    return agent
  }
  return { current, close: async () => agent?.destroy() }
}

function buildAgent(ca: string | undefined, timeoutMs: number): EnvHttpProxyAgent {
  // Made once: parsing the system's roots for each connection costs tens of milliseconds.
  const roots = ca === undefined ? {} : { ca: [...tls.getCACertificates('default'), ca] }
  const trust = { secureContext: tls.createSecureContext(roots), allowH2: false }
  return new EnvHttpProxyAgent({
    connect: { ...trust, timeout: timeoutMs },
    requestTls: trust,
    proxyTls: trust,
    allowH2: false,
    connectTimeout: timeoutMs,
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
  })
}

async function readCa(file: string): Promise<string> {
  const pem = await readFile(file, 'utf8').catch(() => undefined)
  if (pem?.includes('-----BEGIN CERTIFICATE-----')) return pem
  throw environmentFailure('transient', 'ca_unusable', `cannot read a PEM certificate from ${file}`)
}

/**
 * A request that got no HTTP answer, by the error that undici or Node gave for it: network, TLS,
 * proxy, time. Of the error only its code is told: its text may quote what the other side sent.
 */
export function noAnswer(error: unknown, origin: string): TokenError {
  const { code, name, cause } = record(error)
  if (name === 'TimeoutError' || /TIMEOUT|ETIMEDOUT/.test(String(code))) {
    return environmentFailure('transient', 'timeout', `${origin} did not answer in time`)
  }
  if (error instanceof RangeError) {
    const message = `the answer of ${origin} is too large`
    return environmentFailure('transient', 'answer_too_large', message)
  }
  const why = [record(cause).code, code, name].find(word => typeof word === 'string')
  return environmentFailure('transient', 'network', `cannot reach ${origin}: ${why}${hint(why)}`)
}

/** The caller left. That says nothing of the environment. */
function aborted(): TokenError {
  const details = { kind: 'transient', scope: 'organization', code: 'aborted' } as const
  return new TokenError('given up before the environment had answered', details)
}

function hint(why: unknown): string {
  return /SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/.test(String(why))
    ? ' (a private CA? set bluemix.caFile)'
    : ''
}

/** Called as a request begins; what it returns is told how the request ended. */
function createRequestMetrics(registry: Registry) {
  const requests = new Counter({
    name: 'pullpass_bluemix_requests_total',
    help: 'Requests to the Bluemix environment, by operation and HTTP status or failure.',
    labelNames: ['operation', 'code'],
    registers: [registry],
  })
  const seconds = new Histogram({
    name: 'pullpass_bluemix_request_seconds',
    help: 'How long the Bluemix environment took to answer.',
    labelNames: ['operation'],
    registers: [registry],
  })
  return (operation: string) => {
    const stop = seconds.startTimer({ operation })
    return (code: string) => {
      stop()
      requests.inc({ operation, code })
    }
  }
}

import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { Dispatcher } from 'undici'
import type { Answer } from './answer.ts'
import { createConnections } from './connections.ts'
import { environmentFailure } from './failure.ts'
import { aborted, noAnswer } from './no-answer.ts'
import { createRequestMetrics } from './request-metrics.ts'

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
  permitted?: (() => boolean) | undefined
}): { request: Request; close(): Promise<void> } {
  const observe = createRequestMetrics(options.metrics)
  const connections = createConnections(options)
  const { permitted = () => true } = options
  const request: Request = async (ask, signal) => {
    requireHttps(ask.url)
    const dispatcher = await connections.current()
    if (!permitted()) throw aborted()
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

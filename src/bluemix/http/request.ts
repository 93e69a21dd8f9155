import { readFile } from 'node:fs/promises'
import tls from 'node:tls'
import type { Logger } from 'pino'
import { Counter, Histogram, type Registry } from 'prom-client'
import { type Dispatcher, EnvHttpProxyAgent } from 'undici'
import { TokenError } from '../../issuer/issuer.ts'
import { inTime } from '../../time-limit.ts'
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
  /**
   * Receives the body of a 2xx answer as it arrives, of any length, for as long as it returns true;
   * the time limit is on silence then. Absent: the body is read whole, up to 1 MiB.
   */
  body?: (chunk: Uint8Array) => boolean
}

const mostBytes = 1024 * 1024

interface Dependencies {
  logger: Logger
  metrics: Registry
  /** Ends every request. */
  closing: AbortSignal
  /** Asked right before a request leaves: a process that stood still may have lost the right to ask. */
  mayLogIn?: (() => boolean) | undefined
}

interface Settings {
  caFile: string | undefined
  timeoutMs: number
}

/** Resolves with any HTTP answer; rejects with a TokenError where there was none. */
export type Request = (ask: Ask, signal: AbortSignal) => Promise<Answer>

/**
 * The one door to the environment: HTTPS only, certificates always verified, redirects never
 * followed, bodies bounded. HTTPS_PROXY and NO_PROXY are honoured. The private CA is read again
 * when it changes.
 */
export function createRequest(
  dependencies: Dependencies,
  settings: Settings,
): { request: Request; close(): Promise<void> } {
  const { logger, metrics, closing, mayLogIn = () => true } = dependencies
  const observe = createRequestMetrics(metrics)
  const connections = createConnections(settings)
  const request: Request = async (ask, signal) => {
    requireHttps(ask.url)
    const dispatcher = await connections.current()
    if (!mayLogIn()) throw aborted()
    const left = AbortSignal.any([signal, closing])
    // The connections have the same limit on silence.
    const limits = ask.body === undefined ? [AbortSignal.timeout(settings.timeoutMs)] : []
    const end = observe(ask.operation)
    try {
      const answer = await exchange(dispatcher, ask, AbortSignal.any([left, ...limits]))
      end(String(answer.status))
      logger.debug({ operation: ask.operation, status: answer.status }, 'asked')
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
  return inTime(work, { signal }).catch(error => {
    throw signal.aborted ? aborted() : error
  })
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
  const isStreamed = ask.body !== undefined && statusCode < 300
  const json = isStreamed ? await passOn(body, ask.body) : parse(await readBounded(body))
  return { origin: url.origin, status: statusCode, headers, json, sent: ask.sent }
}

async function passOn(body: AsyncIterable<Buffer>, receive: Ask['body']): Promise<undefined> {
  for await (const chunk of body) if (!receive?.(chunk)) return
}

async function readBounded(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > mostBytes) throw new RangeError('answer too large')
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
function createConnections({ caFile, timeoutMs }: Settings): {
  current(): Promise<Dispatcher>
  close(): Promise<void>
} {
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

/*
 * What kept a request from getting any HTTP answer, by the code that Node gives. Value names are those
 * of the chart. Of the error only its code is shown: its text may quote what the other side sent.
 */
// biome-ignore format: a table is read by its columns
const noAnswers: readonly { codes: RegExp; code: string; sentence: string }[] = [
  { codes: /^(ENOTFOUND|EAI_NODATA|EAI_NONAME)$/, code: 'unknown_host', sentence: 'DNS does not know this host name: check domain, bluemix.api and registry.host' },
  { codes: /^EAI_/, code: 'unknown_host', sentence: 'DNS gives no answer about this host name: check the DNS of the cluster' },
  { codes: /^CERT_HAS_EXPIRED$/, code: 'untrusted_certificate', sentence: 'its certificate has expired' },
  { codes: /^CERT_NOT_YET_VALID$/, code: 'untrusted_certificate', sentence: 'its certificate is not valid yet: check the clock of the node' },
  { codes: /ALTNAME_INVALID/, code: 'untrusted_certificate', sentence: 'its certificate is for another host name: check domain, bluemix.api and registry.host' },
  { codes: /SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)|^CERT_|^INVALID_CA/, code: 'untrusted_certificate', sentence: 'its certificate is not trusted: for a private CA set environmentCa (bluemix.caFile)' },
  { codes: /^(EPROTO|ERR_SSL_.*)$/, code: 'untrusted_certificate', sentence: 'no TLS connection came about: is there a TLS server at this port?' },
  { codes: /^(ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT)$/, code: 'unreachable', sentence: 'no connection came about: check network policies, firewalls and proxy.https' },
]

/** A request that got no HTTP answer, by the error that undici or Node gave for it. */
export function noAnswer(error: unknown, origin: string): TokenError {
  const { code, name, cause } = record(error)
  const why = [record(cause).code, code, name].find(word => typeof word === 'string')
  const known = noAnswers.find(({ codes }) => codes.test(String(why)))
  if (known !== undefined) {
    const message = `cannot reach ${origin}: ${known.sentence} (${why})`
    return environmentFailure('transient', known.code, message)
  }
  if (name === 'TimeoutError' || /TIMEOUT|ETIMEDOUT/.test(String(code))) {
    return environmentFailure('transient', 'timeout', `${origin} did not answer in time`)
  }
  if (error instanceof RangeError) {
    const message = `the answer of ${origin} is too large`
    return environmentFailure('transient', 'answer_too_large', message)
  }
  return environmentFailure('transient', 'network', `cannot reach ${origin}: ${why}`)
}

/** The caller left. That says nothing of the environment. */
function aborted(): TokenError {
  const details = { kind: 'transient', scope: 'organization', code: 'aborted' } as const
  return new TokenError('given up before the environment had answered', details)
}

/** Called as a request begins. Call what it returns when the request has ended, with the outcome. */
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

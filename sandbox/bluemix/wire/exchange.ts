import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import type { Fault, Operation } from '../faults.ts'

/** A request, as the services of the environment receive it. */
export interface Received {
  operation: Operation | undefined
  method: string
  host: string
  path: string
  query: URLSearchParams
  headers: IncomingHttpHeaders
  /** The whole body; empty for `/v2/*`, which reads `stream`. */
  body: string
  stream: IncomingMessage
  /** The fault of this request. */
  fault: Fault
  /** Epoch ms by the clock of the responding service. */
  now: number
}

/** One of `json`, `text` and `stream` is the body. */
export interface Answer {
  status: number
  headers: Record<string, string | string[]>
  json?: unknown
  text?: string
  stream?: Readable
}

export type Handler = (received: Received) => Answer | Promise<Answer>

export function json(status: number, body: unknown, headers: Record<string, string> = {}): Answer {
  return {
    status,
    headers: { 'content-type': 'application/json;charset=utf-8', ...headers },
    json: body,
  }
}

export function text(status: number, body: string, headers: Record<string, string> = {}): Answer {
  return { status, headers: { 'content-type': 'text/plain', ...headers }, text: body }
}

export function html(status: number, title: string): Answer {
  const page = `<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>\n`
  return { status, headers: { 'content-type': 'text/html' }, text: page }
}

/** Decoded user and password of a Basic header; both may be empty, the scheme may not be absent. */
export function basicCredentials(
  received: Received,
): { user: string; password: string } | undefined {
  const encoded = /^Basic ([A-Za-z0-9+/]+=*)$/.exec(received.headers.authorization ?? '')?.[1]
  if (encoded === undefined) return undefined
  const decoded = Buffer.from(encoded, 'base64').toString()
  const colon = decoded.indexOf(':')
  if (colon < 0) return undefined
  return { user: decoded.slice(0, colon), password: decoded.slice(colon + 1) }
}

/** The fields of a form body; undefined for another content type or a field given twice. */
export function formFields(received: Received): Map<string, string> | undefined {
  const [type] = (received.headers['content-type'] ?? '').split(';')
  if (type?.trim().toLowerCase() !== 'application/x-www-form-urlencoded') return undefined
  return uniqueFields(new URLSearchParams(received.body))
}

/** Name to value; undefined where a name is given twice. */
export function uniqueFields(parameters: URLSearchParams): Map<string, string> | undefined {
  const fields = new Map(parameters)
  return fields.size === [...parameters].length ? fields : undefined
}

/** The first name that is not allowed. */
export function unknownName(names: Iterable<string>, allowed: string[]): string | undefined {
  for (const name of names) if (!allowed.includes(name)) return name
  return undefined
}

/** One HTTP answer of the environment, read whole. Nothing of it is fit for a log before `said`. */
export interface Answer {
  /** Who answered, for messages: `https://api.dedicated.example.com`. */
  origin: string
  status: number
  headers: Readonly<Record<string, string | string[] | undefined>>
  /** The body as JSON; undefined where it is none (a 500 may be plain text, a 502 a page). */
  json: unknown
  /** The secrets that were sent with the request: an answer may repeat them. */
  sent: readonly string[]
}

/** What an answer says of itself, stripped of everything secret. */
export interface Said {
  /** The machine's word: `unauthorized`, `CF-InvalidAuthToken`, `CRG0009E`, `BXNIM0415E`. */
  code: string | undefined
  /** The sentence for people, redacted and cut. */
  detail: string
  /** For a question to the environment's operators. */
  requestId: string | undefined
}

/*
 * The five error bodies of the environment:
 *
 * | system             | code         | sentence            | request id               |
 * |--------------------|--------------|---------------------|--------------------------|
 * | UAA                | error        | error_description   |                          |
 * | IAM                | errorCode    | errorMessage        | context.requestId        |
 * | Cloud Foundry v2   | error_code   | description         | header X-VCAP-Request-ID |
 * | Cloud Foundry v3   | errors[].title | errors[].detail   | header X-VCAP-Request-ID |
 * | registry           | code         | message             | request-id               |
 */
const codeFields = ['errorCode', 'error_code', 'title', 'error', 'code']
const detailFields = ['error_description', 'errorMessage', 'description', 'detail', 'message']
/** The login server puts its own code into the sentence: "BMXLS0202E: You are using ...". */
const codeInDetail = /\b(?:BMXLS|BXNIM)\d{4}E\b/

/**
 * Reads any of the environment's error bodies. The sentence is passed on only after redaction,
 * because UAA 4.8 repeats the refresh token in it (cloudfoundry/uaa UaaTokenServices.java).
 */
export function said(answer: Answer): Said {
  const body = errorBody(answer.json)
  const detail = firstString(body, detailFields) ?? ''
  const code = codeInDetail.exec(detail)?.[0] ?? firstString(body, codeFields)
  return {
    code: code !== undefined && isCode(code) && !answer.sent.includes(code) ? code : undefined,
    detail: redact(detail, answer.sent),
    requestId: requestId(body, answer),
  }
}

/**
 * Takes out what was sent and whatever looks like a credential: any unbroken run of 20 or more of
 * the characters of tokens. GUIDs go with it. Leaves one line of at most 160 characters.
 */
export function redact(text: string, sent: readonly string[]): string {
  const known = sent.filter(secret => secret !== '').toSorted((a, b) => b.length - a.length)
  const without = known
    .flatMap(secret => [secret, encodeURIComponent(secret)])
    .reduce((rest, secret) => rest.replaceAll(secret, '[redacted]'), text)
  return without
    .replace(/[\w.~+/=%-]{20,}/g, '[redacted]')
    .replace(/[\s\p{Cc}]+/gu, ' ')
    .trim()
    .slice(0, 160)
}

/**
 * Milliseconds to wait, between a second and five minutes. Cloud Controllers of 2017 put the same
 * epoch as X-RateLimit-Reset into Retry-After (cloud_controller_ng middleware/rate_limiter.rb);
 * later ones, and the standard, a number of seconds or a date.
 */
export function retryAfter(answer: Answer, nowMs: number): number | undefined {
  const header = answer.headers['retry-after']
  if (typeof header !== 'string' || header === '') return undefined
  const seconds = Number(header)
  const waitMs = Number.isNaN(seconds) ? Date.parse(header) - nowMs : waitFor(seconds, nowMs)
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(waitMs, 1000), 300_000)
}

/** An object as a record; anything else as an empty one, so that reading a field never fails. */
export function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

/** A string field that is not empty, else undefined. */
export function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

function waitFor(seconds: number, nowMs: number): number {
  return seconds > 1e9 ? seconds * 1000 - nowMs : seconds * 1000
}

function errorBody(json: unknown): Record<string, unknown> {
  const { errors } = record(json)
  return Array.isArray(errors) ? record(errors[0]) : record(json)
}

function firstString(body: Record<string, unknown>, fields: string[]): string | undefined {
  return fields.map(field => text(body[field])).find(value => value !== undefined)
}

function isCode(code: string): boolean {
  return /^(?:CF-\w{1,40}|[A-Z]{3,6}\d{4}[A-Z]|[a-z][a-z_-]{1,30})$/.test(code)
}

function requestId(body: Record<string, unknown>, answer: Answer): string | undefined {
  const id =
    text(body['request-id']) ??
    text(record(body.context).requestId) ??
    text(answer.headers['x-vcap-request-id'])
  const plain = id !== undefined && /^[\w:.-]{1,80}$/.test(id) && !id.startsWith('eyJ')
  return plain && !answer.sent.includes(id) ? id : undefined
}

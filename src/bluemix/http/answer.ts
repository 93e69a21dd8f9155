import { TokenError, type TokenErrorKind, type TokenErrorScope } from '../../issuer/issuer.ts'

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
interface Said {
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

export type System = 'login' | 'cloud_foundry' | 'registry'

interface Row {
  system?: System
  /** Lowest and highest status the row is for. */
  status: readonly [number, number]
  /** Matched against the code and the sentence of the body. */
  says?: RegExp
  kind: TokenErrorKind
  scope: TokenErrorScope
  code: string
  sentence: string
}

const lockedAccount = /account has been locked/i
const hasCode = /^\S/
const any = [300, 599] as const
const refusal = { kind: 'locked', scope: 'environment' } as const
const outage = { kind: 'transient', scope: 'environment' } as const
const denial = { kind: 'permanent', scope: 'organization' } as const
const mistake = { kind: 'permanent', scope: 'environment' } as const

/*
 * What each answer that is not a success means; the first row that fits counts. A 404 at the login
 * is the router's word for "not running now". A 401 or 403 without a code of UAA or IAM comes from
 * something in between. Neither is a refusal: see login/lockout-guard.ts for what follows.
 */
// biome-ignore format: a table is read by its columns
const table: Row[] = [
  { status: [429, 429], ...outage, code: 'rate_limited', sentence: 'too many requests' },
  { system: 'registry', status: any, says: /CRG0014E/, ...outage, code: 'registry_cannot_authenticate', sentence: 'the registry could not check the access token' },
  { system: 'registry', status: [401, 401], ...denial, code: 'not_a_member', sentence: 'the registry refuses this user for the organization: is the user a member of it?' },
  { system: 'registry', status: [403, 403], ...denial, code: 'not_authorized', sentence: 'the user may not manage registry tokens of the organization' },
  { system: 'registry', status: [404, 405], ...mistake, code: 'token_api_missing', sentence: 'the registry has no such token API: check registry.url' },
  { system: 'registry', status: [501, 501], ...mistake, code: 'token_api_missing', sentence: 'the registry has no such token API: check registry.url' },
  { status: [500, 599], ...outage, code: 'unavailable', sentence: 'the environment does not work at the moment' },
  { status: [408, 408], ...outage, code: 'unavailable', sentence: 'the environment did not wait for the request' },
  { status: [300, 399], ...outage, code: 'redirected', sentence: 'redirects are not followed with credentials: check the address' },
  { system: 'login', status: any, says: /BMXLS0202E|BXNIM0608E/, ...refusal, code: 'federated_user', sentence: 'a federated user cannot log in with a password: use an API key' },
  { system: 'login', status: any, says: lockedAccount, ...refusal, code: 'account_locked', sentence: 'the account is locked after too many failed logins' },
  { system: 'login', status: any, says: /password has expired/i, ...refusal, code: 'password_expired', sentence: 'the password has expired: set a new one' },
  { system: 'login', status: [404, 404], ...outage, code: 'login_not_found', sentence: 'no login endpoint at this address' },
  { system: 'login', status: [400, 499], says: hasCode, ...refusal, code: 'login_refused', sentence: 'the login was refused: check the API key, or user name and password' },
  { system: 'login', status: [400, 499], ...outage, code: 'login_unavailable', sentence: 'not a login server' },
  { system: 'cloud_foundry', status: [401, 401], says: /CF-NotAuthenticated/, ...mistake, code: 'access_token_missing', sentence: 'the access token did not arrive: does a proxy remove the Authorization header?' },
  { system: 'cloud_foundry', status: [401, 401], ...outage, code: 'access_token_refused', sentence: 'the access token was refused, also after a new one' },
  { system: 'cloud_foundry', status: [403, 403], ...denial, code: 'not_authorized', sentence: 'the user may not read the organization' },
  { system: 'cloud_foundry', status: [404, 404], says: /CF-OrganizationNotFound/, ...denial, code: 'organization_not_found', sentence: 'there is no such organization' },
  { system: 'cloud_foundry', status: [404, 404], ...outage, code: 'api_not_found', sentence: 'no Cloud Foundry API answers there: check bluemix.api' },
  { system: 'cloud_foundry', status: [400, 400], ...denial, code: 'bad_query', sentence: 'the search for the organization was not understood' },
]
const otherwise = { ...mistake, code: 'request_refused', sentence: 'the request was refused' }

/**
 * An answer that is not a success, as the one error of an Issuer.
 * @param action what was tried, for the message: `look up organization "acme"`
 * @param nowMs the wall clock, for a `Retry-After` that is a point in time
 */
export function failure(system: System, action: string, answer: Answer, nowMs: number): TokenError {
  const words = said(answer)
  const row = table.find(row => fits(row, system, answer.status, words)) ?? otherwise
  const { kind, scope, code } = row
  const retryAfterMs = kind === 'transient' ? retryAfter(answer, nowMs) : undefined
  const message = `cannot ${action}: ${row.sentence} (${facts(answer, words)})`
  return new TokenError(message, { kind, scope, code, retryAfterMs })
}

/**
 * Whether a refused refresh calls for a full login: UAA says 401 `invalid_token` or 400
 * `invalid_grant`, IAM 400 BXNIM0407E, 0408E or 0439E, IBM's SDKs also expect `invalid-token`.
 * Any other refusal in their shape does too, except a locked account.
 */
export function refreshEnded(answer: Answer): boolean {
  const { code, detail } = said(answer)
  const isRefusal = [400, 401, 403].includes(answer.status) && code !== undefined
  return isRefusal && !lockedAccount.test(detail)
}

/** A success whose body is not what it should be. Whatever was asked for may have been done. */
export function unexpectedAnswer(action: string, answer: Answer): TokenError {
  const message = `cannot ${action}: the answer is not understood (${answer.origin}: HTTP ${answer.status})`
  return new TokenError(message, { ...outage, code: 'unexpected_answer' })
}

/** A failure of the environment as a whole that no answer speaks of: network, files, TLS. */
export function environmentFailure(
  kind: TokenErrorKind,
  code: string,
  message: string,
): TokenError {
  return new TokenError(message, { kind, scope: 'environment', code })
}

/** A failure that concerns the one organization only. */
export function organizationFailure(code: string, message: string): TokenError {
  return new TokenError(message, { ...denial, code })
}

function fits(row: Row, system: System, status: number, words: Said): boolean {
  if (row.system !== undefined && row.system !== system) return false
  if (status < row.status[0] || status > row.status[1]) return false
  return row.says === undefined || row.says.test(`${words.code ?? ''} ${words.detail}`)
}

function facts(answer: Answer, { code, detail, requestId }: Said): string {
  const status = [`HTTP ${answer.status}`, code].filter(Boolean).join(' ')
  const sentence = detail === '' ? '' : `, "${detail}"`
  const request = requestId === undefined ? '' : `, request ${requestId}`
  return `${answer.origin}: ${status}${sentence}${request}`
}

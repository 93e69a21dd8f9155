import t from 'tap'
import {
  type Answer,
  failure,
  redact,
  refreshEnded,
  retryAfter,
  type System,
  said,
} from '../../src/bluemix/http/answer.ts'
import { noAnswer } from '../../src/bluemix/http/request.ts'

const origin = 'https://host.example.com'
const answer = (status: number, json?: unknown, headers: Answer['headers'] = {}): Answer => ({
  ...{ origin, status, headers, json, sent: ['the-key', 'abc.def.ghi'] },
})
const uaa = (error: string, error_description: string) => ({ error, error_description })
const v2 = (code: number, error_code: string) => ({ description: 'words', error_code, code })
const v3 = (code: number, title: string) => ({ errors: [{ detail: 'words', title, code }] })
const crg = (code: string) => ({ code, message: 'words', 'request-id': '72-1540337041.610-99712' })
const iam = (errorCode: string) => ({
  ...{ errorCode, errorMessage: 'words', context: { requestId: 'iam-1' } },
})
const locked = 'Your account has been locked because of too many failed attempts to login.'
const expired = 'Your current password has expired. Please reset your password.'
const sso = 'BMXLS0202E: You are using a federated user ID, please use one time code'

// biome-ignore format: a table is read by its columns
const table: [System, number, unknown, string, string, string][] = [
  ['login', 401, uaa('unauthorized', 'Bad credentials'), 'locked', 'environment', 'login_refused'],
  ['login', 401, uaa('unauthorized', locked), 'locked', 'environment', 'account_locked'],
  ['login', 401, uaa('unauthorized', sso), 'locked', 'environment', 'federated_user'],
  ['login', 403, uaa('access_denied', expired), 'locked', 'environment', 'password_expired'],
  ['login', 401, uaa('invalid_client', 'Unauthorized grant type: password'), 'locked', 'environment', 'login_refused'],
  ['login', 400, uaa('unsupported_grant_type', 'words'), 'locked', 'environment', 'login_refused'],
  ['login', 400, uaa('invalid_request', 'words'), 'locked', 'environment', 'login_refused'],
  ['login', 400, iam('BXNIM0415E'), 'locked', 'environment', 'login_refused'],
  ['login', 400, iam('BXNIM0602E'), 'locked', 'environment', 'login_refused'],
  ['login', 400, iam('BXNIM0608E'), 'locked', 'environment', 'federated_user'],
  ['login', 401, undefined, 'transient', 'environment', 'login_unavailable'],
  ['login', 403, undefined, 'transient', 'environment', 'login_unavailable'],
  ['login', 404, undefined, 'transient', 'environment', 'login_not_found'],
  ['login', 429, undefined, 'transient', 'environment', 'rate_limited'],
  ['login', 302, undefined, 'transient', 'environment', 'redirected'],
  ['login', 503, undefined, 'transient', 'environment', 'unavailable'],
  ['cloud_foundry', 401, v2(1000, 'CF-InvalidAuthToken'), 'transient', 'environment', 'access_token_refused'],
  ['cloud_foundry', 401, v3(1000, 'CF-InvalidAuthToken'), 'transient', 'environment', 'access_token_refused'],
  ['cloud_foundry', 401, v2(10002, 'CF-NotAuthenticated'), 'permanent', 'environment', 'access_token_missing'],
  ['cloud_foundry', 401, v3(10002, 'CF-NotAuthenticated'), 'permanent', 'environment', 'access_token_missing'],
  ['cloud_foundry', 403, v2(10003, 'CF-NotAuthorized'), 'permanent', 'organization', 'not_authorized'],
  ['cloud_foundry', 400, v2(10005, 'CF-BadQueryParameter'), 'permanent', 'organization', 'bad_query'],
  ['cloud_foundry', 400, v3(10005, 'CF-BadQueryParameter'), 'permanent', 'organization', 'bad_query'],
  ['cloud_foundry', 404, v2(30003, 'CF-OrganizationNotFound'), 'permanent', 'organization', 'organization_not_found'],
  ['cloud_foundry', 404, v2(10010, 'CF-ResourceNotFound'), 'transient', 'environment', 'api_not_found'],
  ['cloud_foundry', 404, undefined, 'transient', 'environment', 'api_not_found'],
  ['cloud_foundry', 429, v2(10013, 'CF-RateLimitExceeded'), 'transient', 'environment', 'rate_limited'],
  ['cloud_foundry', 503, v2(20004, 'CF-UaaUnavailable'), 'transient', 'environment', 'unavailable'],
  ['cloud_foundry', 500, v3(10001, 'UnknownError'), 'transient', 'environment', 'unavailable'],
  ['cloud_foundry', 418, undefined, 'permanent', 'environment', 'request_refused'],
  ['registry', 401, crg('CRG0009E'), 'permanent', 'organization', 'not_a_member'],
  ['registry', 403, crg('CRG0020E'), 'permanent', 'organization', 'not_authorized'],
  ['registry', 401, crg('CRG0014E'), 'transient', 'environment', 'registry_cannot_authenticate'],
  ['registry', 404, undefined, 'permanent', 'environment', 'token_api_missing'],
  ['registry', 405, undefined, 'permanent', 'environment', 'token_api_missing'],
  ['registry', 501, undefined, 'permanent', 'environment', 'token_api_missing'],
  ['registry', 500, undefined, 'transient', 'environment', 'unavailable'],
  ['registry', 429, undefined, 'transient', 'environment', 'rate_limited'],
  ['registry', 408, undefined, 'transient', 'environment', 'unavailable'],
]

t.test('every error body of the environment becomes one kind of error', async t => {
  for (const [system, status, body, kind, scope, code] of table) {
    const error = failure(system, 'do it', answer(status, body), 0)
    const name = `${system} ${status} ${JSON.stringify(body) ?? 'no JSON'}`
    t.strictSame([error.kind, error.scope, error.code], [kind, scope, code], name)
    t.match(error.message, `HTTP ${status}`)
    t.match(error.message, /^cannot do it: .+ \(https:\/\/host\.example\.com: HTTP/)
  }
})

t.test('an error names what the operators of the environment need to know', async t => {
  const registry = failure('registry', 'mint', answer(401, crg('CRG0009E')), 0)
  t.match(registry.message, 'CRG0009E, "words", request 72-1540337041.610-99712')
  t.match(failure('login', 'log in', answer(400, iam('BXNIM0415E')), 0).message, 'request iam-1')
  const headers = { 'x-vcap-request-id': '1f-2e::3d' }
  const cloudFoundry = answer(401, v2(1000, 'CF-InvalidAuthToken'), headers)
  t.match(failure('cloud_foundry', 'ask', cloudFoundry, 0).message, 'request 1f-2e::3d')
})

t.test('a refused refresh leads to a login, unless the account is locked', async t => {
  const ended: [number, unknown, boolean][] = [
    [401, uaa('invalid_token', 'Invalid refresh token (expired): x'), true],
    [401, uaa('invalid-token', ''), true],
    [400, uaa('invalid_grant', 'Wrong client for this refresh token: x'), true],
    [400, iam('BXNIM0407E'), true],
    [400, iam('BXNIM0408E'), true],
    [400, iam('BXNIM0439E'), true],
    [401, uaa('unauthorized', locked), false],
    [401, undefined, false],
    [403, undefined, false],
    [404, undefined, false],
    [429, undefined, false],
    [503, undefined, false],
  ]
  for (const [status, body, expected] of ended) {
    t.equal(refreshEnded(answer(status, body)), expected, `${status} ${JSON.stringify(body)}`)
  }
})

t.test('no secret of a response body appears in an error', async t => {
  const jwt = 'eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiIxIn0.c2lnbmF0dXJl'
  const repeated = uaa('invalid_token', `Invalid refresh token (expired): ${jwt} expired at now`)
  t.equal(
    said(answer(401, repeated)).detail,
    'Invalid refresh token (expired): [redacted] expired at now',
  )
  t.equal(redact('the key is the-key!', ['the-key']), 'the key is [redacted]!')
  t.equal(redact('a%20b+c and a b+c', ['a b+c']), 'a%20b+c and [redacted]')
  t.equal(redact('p%2Fw', ['p/w']), '[redacted]')
  t.equal(redact('abcd ab', ['ab', 'abcd']), '[redacted] [redacted]')
  t.equal(redact('two\n lines\u0000\u001b[31m', []), 'two lines [31m')
  t.equal(redact('word '.repeat(100), []).length <= 160, true)
  t.match(said(answer(400, uaa('the-key', 'x'))), { code: undefined })
  t.match(said(answer(400, { error: 'x'.repeat(99) })), { code: undefined })
  t.match(said(answer(400, { code: 'CRG0009E', 'request-id': jwt })), { requestId: undefined })
  for (const odd of [null, [], 'text', 7, { error: {} }, { errors: [] }, { errors: [null] }]) {
    t.match(said(answer(400, odd)), { code: undefined, detail: '' }, JSON.stringify(odd))
  }
})

t.test('Retry-After can be a number of seconds, a date or, as in 2017, a Unix time', async t => {
  const nowMs = Date.parse('2017-11-02T12:00:00Z')
  const epoch = nowMs / 1000
  const table: [string | undefined, number | undefined][] = [
    [undefined, undefined],
    ['', undefined],
    ['soon', undefined],
    ['30', 30_000],
    ['0', 1000],
    ['-5', 1000],
    ['86400', 300_000],
    [String(epoch + 42), 42_000],
    [String(epoch - 42), 1000],
    [String(epoch + 86_400), 300_000],
    ['Thu, 02 Nov 2017 12:01:00 GMT', 60_000],
  ]
  for (const [header, expected] of table) {
    t.equal(
      retryAfter(answer(429, undefined, { 'retry-after': header }), nowMs),
      expected,
      String(header),
    )
  }
  const limited = answer(429, undefined, { 'retry-after': String(epoch + 42) })
  t.equal(failure('cloud_foundry', 'ask', limited, nowMs).retryAfterMs, 42_000)
})

t.test('without a response, the error has a code and an action, but no raw text', async t => {
  const coded = (code: string, text = 'the-key') => Object.assign(new Error(text), { code })
  const table: [unknown, string, RegExp][] = [
    [
      coded('ECONNREFUSED'),
      'unreachable',
      /^cannot reach https:\/\/host\.example\.com: no connection/,
    ],
    [
      coded('UND_ERR_CONNECT_TIMEOUT'),
      'unreachable',
      /network policies, firewalls and proxy\.https/,
    ],
    [coded('SELF_SIGNED_CERT_IN_CHAIN'), 'untrusted_certificate', /set environmentCa/],
    [coded('CERT_HAS_EXPIRED'), 'untrusted_certificate', /has expired \(CERT_HAS_EXPIRED\)$/],
    [coded('ERR_TLS_CERT_ALTNAME_INVALID'), 'untrusted_certificate', /for another host name/],
    [coded('EAI_AGAIN'), 'unknown_host', /DNS gives no answer/],
    [coded('ECONNRESET'), 'network', /cannot reach https:\/\/host\.example\.com: ECONNRESET$/],
    [new DOMException('the-key', 'TimeoutError'), 'timeout', /did not answer in time/],
    [new Error('x', { cause: coded('ENOTFOUND') }), 'unknown_host', /check domain, bluemix\.api/],
    [new RangeError('the-key'), 'answer_too_large', /too large/],
    ['the-key', 'network', /cannot reach/],
  ]
  for (const [error, code, message] of table) {
    const failed = noAnswer(error, origin)
    t.match(failed, { code, kind: 'transient', scope: 'environment', message })
    t.notMatch(failed.message, 'the-key')
  }
})

import { mock } from 'node:test'
import t from 'tap'
import { guardIssuer } from '../../src/issuer/guarded-issuer.ts'
import { type Issuer, TokenError } from '../../src/issuer/issuer.ts'

type Kind = 'list' | 'text' | 'mint' | 'revoke'
const { signal } = new AbortController()

/** An issuer of which some calls fail, by `kind organization`, behind guards. */
function setup({ mintsPerMinute = 6000 } = {}) {
  const failing = new Map<string, TokenError>()
  const asked: string[] = []
  const listeners: (() => void)[] = []
  const answer = async <T>(kind: Kind, organization: string, value: T): Promise<T> => {
    asked.push(`${kind} ${organization}`)
    const error = failing.get(`${kind} ${organization}`)
    if (error !== undefined) throw error
    return value
  }
  const token = { text: 'x', id: 'x', expiresAt: undefined }
  const issuer: Issuer = {
    list: organization => answer('list', organization, 'complete' as const),
    text: organization => answer('text', organization, 'x'),
    mint: ({ organization }) => answer('mint', organization, token),
    revoke: organization => answer('revoke', organization, undefined),
    accepts: async () => true,
    start: () => {},
    close: async () => {},
    problem: () => undefined,
    onCredentialChange: listener => void listeners.push(listener),
  }
  const guarded = guardIssuer({ issuer }, { mintsPerMinute })
  const calls = {
    list: (organization: string) => guarded.list(organization, () => {}, signal),
    text: (organization: string) => guarded.text(organization, 'id', signal),
    mint: (organization: string) =>
      guarded.mint({ organization, description: 'd', permanent: true }, signal),
    revoke: (organization: string) => guarded.revoke(organization, 'id', signal),
  }
  /** Whether a call gets through to the environment. */
  const passes = async (kind: Kind, organization: string) => {
    const before = asked.length
    await calls[kind](organization).catch(() => {})
    return asked.length > before
  }
  return {
    asked,
    failing,
    guarded,
    calls,
    passes,
    changeCredential: () => listeners.map(each => each()),
  }
}

const outage = (details: { retryAfterMs?: number; request?: 'login' | 'organizations' } = {}) =>
  new TokenError('it fails', {
    kind: 'transient',
    scope: 'environment',
    code: 'unavailable',
    ...details,
  })

const everyCall: [Kind, string][] = [
  ['list', 'acme'],
  ['text', 'acme'],
  ['mint', 'acme'],
  ['revoke', 'acme'],
  ['list', 'other'],
  ['text', 'other'],
  ['mint', 'other'],
  ['revoke', 'other'],
]

/** The calls that still get through after `times` failures of one. */
async function open(error: TokenError, times: number) {
  const { failing, passes } = setup()
  failing.set('mint acme', error)
  for (let count = 0; count < times; count++) await passes('mint', 'acme')
  failing.clear()
  const results = []
  for (const [kind, organization] of everyCall) {
    results.push((await passes(kind, organization)) ? `${kind} ${organization}` : '')
  }
  return results.filter(Boolean)
}

const all = everyCall.map(call => call.join(' '))

t.test('after a failure, calls that need the failed request wait', async t => {
  const rows: [string, TokenError, number, string[]][] = [
    ['two failures hold back nothing', outage(), 2, all],
    ['three in a row hold back that call', outage(), 3, all.filter(each => each !== 'mint acme')],
    [
      'so does one that names a pause',
      outage({ retryAfterMs: 40_000 }),
      1,
      all.filter(each => each !== 'mint acme'),
    ],
    [
      'a look-up holds back its organization',
      outage({ retryAfterMs: 40_000, request: 'organizations' }),
      1,
      all.filter(each => each.endsWith('other')),
    ],
    ['a login holds back everything', outage({ retryAfterMs: 40_000, request: 'login' }), 1, []],
    ['also without a pause', outage({ request: 'login' }), 3, []],
  ]
  for (const [sentence, error, times, expected] of rows) {
    t.same(await open(error, times), expected, sentence)
  }
})

t.test('no pause of the issuer is longer than five minutes', async t => {
  let now = 0
  const clock = mock.method(performance, 'now', () => now)
  t.teardown(() => clock.mock.restore())
  const { failing, passes } = setup()
  failing.set('list acme', outage({ retryAfterMs: 86_400_000 }))
  await passes('list', 'acme')
  now = 299_000
  t.equal(await passes('list', 'acme'), false)
  now = 301_000
  t.equal(await passes('list', 'acme'), true)
})

t.test('a new credential ends every pause of the issuer', async t => {
  const { failing, passes, changeCredential } = setup()
  failing.set('list acme', outage({ retryAfterMs: 60_000, request: 'login' }))
  await passes('list', 'acme')
  t.equal(await passes('mint', 'other'), false)
  changeCredential()
  t.equal(await passes('mint', 'other'), true)
})

/** A clock that stands still until it is moved. */
function frozenClock(t: { teardown(end: () => void): void }) {
  let now = 1_000_000
  const clock = mock.method(performance, 'now', () => now)
  t.teardown(() => clock.mock.restore())
  return (ms: number) => {
    now += ms
  }
}

t.test('a mint above the limit is rejected at once, with the time to wait', async t => {
  const advance = frozenClock(t)
  const { asked, calls, guarded } = setup({ mintsPerMinute: 2 })
  await calls.mint('acme')
  advance(20_000)
  t.equal(guarded.mintsAvailableIn(), 0)
  await calls.mint('acme')
  t.equal(guarded.mintsAvailableIn(), 40_000)
  const limit = { code: 'mint_limit', kind: 'transient', retryAfterMs: 40_000, sent: false }
  await t.rejects(calls.mint('other'), limit)
  t.equal(asked.length, 2)
  advance(40_000)
  t.equal(guarded.mintsAvailableIn(), 0)
  await calls.mint('other')
  await t.rejects(
    calls.mint('other'),
    { code: 'mint_limit', retryAfterMs: 20_000 },
    'and no more than two in any minute',
  )
})

t.test('a mint that did nothing does not count, and one of unknown outcome does', async t => {
  frozenClock(t)
  const { failing, calls, guarded } = setup({ mintsPerMinute: 1 })
  const refused = { kind: 'permanent', scope: 'organization', code: 'not_a_member' } as const
  for (const error of [outage({ request: 'login' }), new TokenError('refused', refused)]) {
    failing.set('mint acme', error)
    await t.rejects(calls.mint('acme'))
    t.equal(guarded.mintsAvailableIn(), 0, error.code)
  }
  failing.set('mint acme', outage())
  await t.rejects(calls.mint('acme'))
  t.equal(guarded.mintsAvailableIn(), 60_000)
})

t.test('revocations have a limit of their own', async t => {
  frozenClock(t)
  const { calls, guarded } = setup({ mintsPerMinute: 1 })
  for (let count = 0; count < 120; count++) await calls.revoke('acme')
  await t.rejects(calls.revoke('acme'), { code: 'revoke_limit', retryAfterMs: 60_000 })
  t.equal(guarded.mintsAvailableIn(), 0)
})

t.test('a call that a breaker rejects gets the failure that opened it', async t => {
  const { asked, failing, calls } = setup()
  failing.set('mint acme', outage())
  for (let count = 0; count < 3; count++)
    await t.rejects(calls.mint('acme'), { code: 'unavailable', sent: true })
  await t.rejects(calls.mint('acme'), { code: 'unavailable', message: 'it fails', sent: false })
  t.equal(asked.length, 3)
})

import { mock } from 'node:test'
import t from 'tap'
import { guardIssuer } from '../../src/issuer/guarded-issuer.ts'
import { TokenError, type TokenIssuer } from '../../src/issuer/issuer.ts'

type Kind = 'list' | 'mint' | 'revoke'
const { signal } = new AbortController()

/** A guarded issuer of which some calls fail, by `kind organization`. */
function setup() {
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
  const issuer: TokenIssuer & { onCredentialChange(listener: () => void): void } = {
    list: organization => answer('list', organization, []),
    mint: organization => answer('mint', organization, token),
    revoke: organization => answer('revoke', organization, undefined),
    accepts: async () => true,
    onCredentialChange: listener => void listeners.push(listener),
  }
  const guarded = guardIssuer(issuer, { mintsPerMinute: 6000 })
  const calls = {
    list: (organization: string) => guarded.list(organization, signal),
    mint: (organization: string) => guarded.mint(organization, 'd', signal),
    revoke: (organization: string) => guarded.revoke(organization, 'id', signal),
  }
  /** Whether a call gets through to the environment. */
  const passes = async (kind: Kind, organization: string) => {
    const before = asked.length
    await calls[kind](organization).catch(() => {})
    return asked.length > before
  }
  return { failing, passes, changeCredential: () => listeners.map(each => each()) }
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
  ['mint', 'acme'],
  ['revoke', 'acme'],
  ['list', 'other'],
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

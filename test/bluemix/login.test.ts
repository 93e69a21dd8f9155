import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { Fault } from '../../sandbox/bluemix/faults.ts'
import { reachEnvironment } from '../sandbox/bluemix-caller.ts'
import { type Fixture, live, startFixture } from './issuer.ts'

const day = 86_400_000
const minute = 60_000

const loginsOf = ({ environment }: Fixture) =>
  environment.ledger.logins().map(({ kind, outcome }) => `${kind} ${outcome}`)

/** Both clocks: that of pullpass, and that of the environment. */
function pass({ advance, environment }: Fixture, ms: number): void {
  advance(ms)
  environment.clock.advance(ms)
}

function changed({ issuer }: Fixture): Promise<void> {
  return new Promise(resolve => issuer.onCredentialChange(resolve))
}

t.test('a wrong key is tried once, and the right one as soon as it is there', async t => {
  const fixture = await startFixture(t)
  const { environment, issuer, failure, mint, count } = fixture
  await fixture.credential('api-key', 'a-wrong-key')
  issuer.start()
  const error = await failure(mint())
  t.match(error, { kind: 'locked', scope: 'environment', code: 'login_refused' })
  t.match(error.message, /; next login at \S+Z, with other credentials at once$/)
  for (let tries = 0; tries < 20; tries++) await failure(mint())
  t.strictSame(loginsOf(fixture), ['api_key unauthorized'])
  t.match(issuer.problem(), { kind: 'locked', code: 'login_refused', message: /next login at/ })
  t.equal(await count('pullpass_logins_total', { outcome: 'login_refused' }), 1)
  const change = changed(fixture)
  await fixture.credential('api-key', environment.apiKey)
  await change
  t.equal(issuer.problem(), undefined)
  await mint()
  t.strictSame(loginsOf(fixture), ['api_key unauthorized', 'api_key granted'])
})

t.test(
  'a refused login is tried again after an hour, a locked account after 10 minutes',
  async t => {
    const table = [
      ['uaa', 'locked', 'account_locked', 10],
      ['uaa', 'federated', 'federated_user', 60],
      ['uaa', 'password_expired', 'password_expired', 60],
      ['iam', 'federated', 'federated_user', 60],
    ] as const
    for (const [login, refuse, code, minutes] of table) {
      const fixture = await startFixture(t, { login })
      const { environment, failure, mint } = fixture
      await fixture.credential('api-key', undefined)
      await fixture.credential('username', environment.user.name)
      await fixture.credential('password', environment.user.password)
      environment.faults.set('login', { refuse })
      t.match(await failure(mint()), { kind: 'locked', scope: 'environment', code })
      environment.faults.clear()
      pass(fixture, minutes * minute - 1000)
      t.match(await failure(mint()), { kind: 'locked', code })
      t.equal(environment.ledger.logins().length, 1, `${login} ${refuse}`)
      pass(fixture, 1000)
      await mint()
      t.equal(environment.ledger.logins().length, 2, `${login} ${refuse}`)
    }
  },
)

t.test('an unknown key at IAM is tried once', async t => {
  const fixture = await startFixture(t, { login: 'iam' })
  const { failure, mint } = fixture
  await fixture.credential('api-key', 'a-wrong-key')
  const error = await failure(mint())
  t.match(error, { kind: 'locked', code: 'login_refused', message: /BXNIM0415E/ })
  await failure(mint())
  t.strictSame(loginsOf(fixture), ['iam_api_key BXNIM0415E'])
})

t.test('a wrong key whose refusals are lost does not lock the account', async t => {
  const faults: Fault[] = [
    ...(['reset', 'unavailable', 'error_html', 'error_text', 'rate_limited'] as const).map(
      fail => ({
        fail,
        when: 'after' as const,
      }),
    ),
    { fail: 'truncated' },
    { fail: 'unsupported', status: 403, when: 'after' },
    { fail: 'unsupported', when: 'after' },
    // Most probes are answered.
    { fail: 'error_html', when: 'after', probability: 0.5 },
  ]
  for (const fault of faults) {
    const fixture = await startFixture(t)
    const { environment, failure, mint } = fixture
    await fixture.credential('api-key', 'a-wrong-key')
    environment.faults.set('login', fault)
    for (let tries = 0; tries < 60; tries++) {
      t.match((await failure(mint())).message, /next login /)
      pass(fixture, 19_000)
    }
    const logins = environment.ledger.logins().filter(({ kind }) => kind === 'api_key')
    t.ok(logins.length >= 1 && logins.length <= 3, `${fault.fail}: ${logins.length} logins`)
    t.notOk(logins.some(({ user, outcome }) => user === undefined || outcome === 'granted'))
    await fixture.credential('api-key', environment.apiKey)
    environment.faults.clear()
    pass(fixture, 20 * minute)
    await mint()
  }
})

t.test('a login server that is too slow gets one login, and questions without a user', async t => {
  const fixture = await startFixture(t, { timeoutMs: 1500 })
  const { environment, failure, mint } = fixture
  await fixture.credential('api-key', 'a-wrong-key')
  environment.faults.set('login', { answerLatencyMs: 4000 })
  t.match(await failure(mint()), { code: 'timeout', kind: 'transient' })
  for (let tries = 0; tries < 3; tries++) {
    t.match(await failure(mint()), { code: 'timeout', message: /next check at/ })
    pass(fixture, 30_000)
  }
  const kinds = environment.ledger.logins().map(({ kind }) => kind)
  t.strictSame(kinds, ['api_key', 'refresh', 'refresh', 'refresh'])
  await fixture.credential('api-key', environment.apiKey)
  environment.faults.clear()
  await mint()
})

t.test('the end of an outage of the login server is noticed within a minute', async t => {
  for (const login of ['uaa', 'iam'] as const) {
    const fixture = await startFixture(t, { login })
    const { environment, failure, mint } = fixture
    environment.faults.set('login', { fail: 'unavailable' })
    for (let tries = 0; tries < 90; tries++) {
      await failure(mint())
      pass(fixture, 1000)
    }
    environment.faults.clear()
    let seconds = 0
    while (
      await mint().then(
        () => false,
        () => true,
      )
    ) {
      pass(fixture, 1000)
      seconds += 1
    }
    t.ok(seconds <= 30, `${login}: ${seconds} s`)
    const logins = environment.ledger.logins().map(({ kind, outcome }) => `${kind} ${outcome}`)
    const probe = login === 'uaa' ? 'refresh invalid_token' : 'iam_refresh BXNIM0407E'
    t.strictSame(logins, [probe, `${login === 'uaa' ? '' : 'iam_'}api_key granted`])
  }
})

t.test('an account that somebody else has locked is used again after the lock', async t => {
  const fixture = await startFixture(t)
  const { environment, failure, mint } = fixture
  const { name, password } = environment.user
  await fixture.credential('api-key', undefined)
  await fixture.credential('username', name)
  await fixture.credential('password', password)
  const other = reachEnvironment(t, environment)
  const form = { grant_type: 'password', username: name, password: 'x', scope: '' }
  for (let tries = 0; tries < 5; tries++) await other.login(form)
  t.match(await failure(mint()), { kind: 'locked', code: 'account_locked' })
  let minutes = 0
  while (
    await mint().then(
      () => false,
      () => true,
    )
  ) {
    pass(fixture, minute)
    minutes += 1
  }
  t.equal(minutes, 10)
})

t.test('IAM gives UAA tokens along, under its path of 2017 and of today', async t => {
  for (const path of ['/oidc/token', '/identity/token']) {
    const fixture = await startFixture(t, { login: 'iam' })
    const { environment, advance, mint } = fixture
    environment.settings.iamPaths = [path]
    await mint()
    advance(3_600_000)
    await mint()
    t.strictSame(loginsOf(fixture), ['iam_api_key granted', 'iam_refresh granted'], path)
  }
})

t.test('where IAM gives no UAA tokens, UAA exchanges the token of IAM', async t => {
  const fixture = await startFixture(t, { login: 'iam' })
  const { environment, advance, failure, mint } = fixture
  environment.settings.iamGivesUaaTokens = false
  await mint()
  advance(14 * day)
  await mint()
  const granted = ['iam_api_key', 'iam_token', 'iam_refresh', 'iam_token']
  t.strictSame(
    loginsOf(fixture),
    granted.map(kind => `${kind} granted`),
  )
  advance(14 * day)
  environment.on('login', ({ host }) => (host === environment.hosts.login ? 'drop' : undefined))
  t.match(await failure(mint()), { code: 'network', kind: 'transient' })
})

t.test('IAM is asked with the separator that it understands', async t => {
  for (const separator of [' ', ','] as const) {
    const fixture = await startFixture(t, { login: 'iam' })
    const { environment, advance, mint } = fixture
    environment.settings.iamSeparator = separator
    environment.settings.iamPaths = ['/identity/token']
    await mint()
    advance(3_600_000)
    await mint()
    const known = loginsOf(fixture).filter(login => !login.startsWith('malformed'))
    t.strictSame(known, ['iam_api_key granted', 'iam_refresh granted'], separator)
  }
})

const keyTable: [content: string, expected: string | RegExp][] = [
  ['KEY', 'KEY'],
  ['\uFEFFKEY\r\n', 'KEY'],
  [' \t KEY \r\n\r\n', 'KEY'],
  [
    '{"name":"pullpass","description":"","createdAt":"2017-11-02T10:00+0000","apiKey":"KEY"}',
    'KEY',
  ],
  ['\uFEFF{\r\n\t"name": "pullpass",\r\n\t"apikey": "KEY"\r\n}\r\n', 'KEY'],
  ['{"name":"pullpass"}', /is JSON without a field apiKey/],
  ['{"apiKey":', /is JSON without a field apiKey/],
  ['{"apiKey":["KEY"]}', /is JSON without a field apiKey/],
  ['"KEY"', /has quotes around the key/],
  ["'KEY'\n", /has quotes around the key/],
  ['KEY\nKEY', /has more than one line/],
  ['Bearer KEY', /has blanks in the key/],
  ['<KEY>', /has characters that no API key has/],
  ['\0K\0E\0Y', /is not UTF-8/],
]

t.test('a key file is read as people write it, or refused with a hint', async t => {
  for (const [content, expected] of keyTable) {
    const fixture = await startFixture(t)
    const { environment, issuer, failure, mint } = fixture
    await fixture.credential('api-key', content.replaceAll('KEY', environment.apiKey))
    const name = JSON.stringify(content)
    if (typeof expected === 'string') {
      await mint()
      t.strictSame(loginsOf(fixture), ['api_key granted'], name)
      continue
    }
    const error = await failure(mint())
    t.match(error, { code: 'credentials_unusable', kind: 'locked', message: expected }, name)
    t.match(
      error.message,
      /^cannot log in: \S+\/api-key is not usable: .*; next login when it changes$/,
    )
    t.match(issuer.problem(), { code: 'credentials_unusable' })
    t.strictSame(loginsOf(fixture), [], name)
  }
})

t.test('a password keeps its blanks, and has one line', async t => {
  const fixture = await startFixture(t)
  const { environment, failure, mint } = fixture
  environment.user.password = ' two words '
  await fixture.credential('api-key', undefined)
  await fixture.credential('username', `\uFEFF ${environment.user.name} \r\n`)
  await fixture.credential('password', '\uFEFF two words \r\n')
  await mint()
  await fixture.credential('password', 'one\ntwo')
  fixture.advance(30 * day)
  t.match(await failure(mint()), {
    code: 'credentials_unusable',
    message: /password is not usable/,
  })
  t.strictSame(loginsOf(fixture), ['password granted'])
})

t.test('user name and password log in where there is no API key', async t => {
  for (const [login, kind] of [
    ['uaa', 'password'],
    ['iam', 'iam_password'],
  ] as const) {
    const fixture = await startFixture(t, { login })
    const { environment, mint } = fixture
    await fixture.credential('username', `${environment.user.name}\n`)
    await fixture.credential('password', `${environment.user.password}\r\n`)
    await mint()
    t.match(loginsOf(fixture), [/api_key granted/], 'the key comes first')
    await fixture.credential('api-key', undefined)
    fixture.advance(30 * day)
    await mint()
    t.match(loginsOf(fixture), [/api_key granted/, `${kind} granted`])
  }
})

t.test('credentials that are missing are named, and used once they are there', async t => {
  const fixture = await startFixture(t)
  const { environment, issuer, settings, failure, mint } = fixture
  const file = (name: string) => join(settings.credentialsDirectory, name)
  const missing = async (name: string) => {
    const error = await failure(mint())
    t.match(error, { code: 'credentials_missing', kind: 'locked', scope: 'environment' })
    t.match(error.message, file(name))
  }
  await fixture.credential('api-key', undefined)
  issuer.start()
  await missing('api-key')
  t.match(issuer.problem(), { code: 'credentials_missing' })
  await fixture.credential('api-key', '\n')
  await missing('api-key')
  await fixture.credential('username', 'somebody')
  await missing('password')
  await fixture.credential('username', undefined)
  await fixture.credential('password', 'something')
  await missing('username')
  t.strictSame(environment.ledger.logins(), [])
  const change = changed(fixture)
  await fixture.credential('api-key', environment.apiKey)
  await change
  await mint()
  t.equal(issuer.problem(), undefined)
})

t.test('a mounted Secret that changes by its symbolic link is seen', async t => {
  const mount = await mkdtemp(join(tmpdir(), 'pullpass-mount-'))
  t.teardown(() => rm(mount, { recursive: true }))
  const project = async (version: string, key: string) => {
    await mkdir(join(mount, version))
    await writeFile(join(mount, version, 'api-key'), key)
    await symlink(version, join(mount, '..new'))
    await rename(join(mount, '..new'), join(mount, '..data'))
  }
  await project('..1', 'a-wrong-key')
  await symlink('..data/api-key', join(mount, 'api-key'))
  const fixture = await startFixture(t, { credentialsDirectory: mount })
  fixture.issuer.start()
  await fixture.failure(fixture.mint())
  const change = changed(fixture)
  await project('..2', fixture.environment.apiKey)
  await change
  await fixture.mint()
  t.equal(fixture.environment.ledger.logins().length, 2)
})

t.test('other credentials in the files end the session of the former ones', async t => {
  const fixture = await startFixture(t)
  const { environment, mint } = fixture
  fixture.issuer.start()
  await mint()
  environment.user.apiKeys = ['another-key']
  const change = changed(fixture)
  await fixture.credential('api-key', 'another-key')
  await change
  await mint()
  t.strictSame(loginsOf(fixture), ['api_key granted', 'api_key granted'])
})

t.test('the session is renewed at 80 % of its life, once for all who ask', async t => {
  const fixture = await startFixture(t)
  const { environment, advance, mint } = fixture
  environment.settings.accessTokenSeconds = 1000
  await mint()
  advance(790_000)
  await mint()
  t.equal(environment.ledger.logins().length, 1)
  advance(20_000)
  await Promise.all(['a', 'b', 'c', 'd', 'e'].map(name => mint(name)))
  t.strictSame(loginsOf(fixture), ['api_key granted', 'refresh granted'])
  t.equal(environment.ledger.maxLoginsInFlight(), 1)
})

t.test('refresh tokens that are replaced at each use are followed', async t => {
  const fixture = await startFixture(t)
  const { environment, advance, mint } = fixture
  environment.settings.rotateRefreshTokens = true
  for (let days = 0; days < 4; days++) {
    await mint()
    advance(14 * day)
  }
  t.strictSame(loginsOf(fixture), ['api_key granted', ...Array(3).fill('refresh granted')])
})

t.test('a refresh token that is of no use any more means a login', async t => {
  const table: ['uaa' | 'iam', string, (scene: Fixture) => void][] = [
    ['uaa', 'refresh invalid_token', ({ environment }) => environment.revokeRefreshTokens()],
    ['iam', 'iam_refresh BXNIM0439E', ({ environment }) => environment.revokeRefreshTokens()],
    ['iam', 'iam_refresh BXNIM0408E', ({ environment }) => environment.clock.advance(60 * day)],
    [
      'uaa',
      'refresh invalid_grant',
      ({ environment }) => environment.faults.set('login', { refuse: 'wrong_client' }),
    ],
  ]
  for (const [login, refused, end] of table) {
    const fixture = await startFixture(t, { login })
    await fixture.mint()
    end(fixture)
    fixture.advance(60 * day)
    await fixture.mint()
    const kind = login === 'uaa' ? 'api_key' : 'iam_api_key'
    t.strictSame(loginsOf(fixture), [`${kind} granted`, refused, `${kind} granted`])
  }
})

t.test('a login of somebody else with the same account ends the session once', async t => {
  const fixture = await startFixture(t)
  const { environment, advance, mint } = fixture
  environment.settings.uniqueRefreshTokens = true
  await mint()
  await reachEnvironment(t, environment).accessToken()
  advance(13 * day)
  await mint()
  advance(13 * day)
  await mint()
  t.strictSame(loginsOf(fixture).slice(2), [
    'refresh invalid_token',
    'api_key granted',
    'refresh granted',
  ])
})

t.test('a page in place of the answer to a refresh means no login', async t => {
  const fixture = await startFixture(t)
  const { environment, advance, failure, mint } = fixture
  await mint()
  environment.faults.set('login', { fail: 'unsupported', status: 403 })
  advance(15 * day)
  t.match(await failure(mint()), { code: 'login_unavailable', kind: 'transient' })
  environment.faults.clear()
  await mint()
  t.strictSame(loginsOf(fixture), ['api_key granted', 'refresh granted'])
})

t.test('a session that cannot be renewed yet goes on while it lives', async t => {
  const fixture = await startFixture(t)
  const { environment, advance, failure, mint } = fixture
  environment.settings.accessTokenSeconds = 1000
  await mint()
  environment.faults.set('login', { fail: 'unavailable' })
  advance(850_000)
  await mint()
  await mint()
  t.equal(environment.ledger.requests('login').length, 2, 'tried again after a pause only')
  advance(200_000)
  t.match(await failure(mint()), { code: 'unavailable', kind: 'transient' })
  environment.faults.clear()
  await mint()
})

t.test(
  'an access token that is refused is renewed once, and the request repeated once',
  async t => {
    for (const where of ['everywhere', 'registry'] as const) {
      const fixture = await startFixture(t)
      const { environment, issuer, mint } = fixture
      await mint()
      environment.expireAccessTokens(where)
      await Promise.all([mint('a'), mint('b'), mint('c', 'acme-shop')])
      t.strictSame(loginsOf(fixture), ['api_key granted', 'refresh granted'], where)
      t.equal(environment.ledger.mints().length, 4)
      fixture.advance(60_000)
      environment.faults.set('mint', { accessTokens: 'expired' })
      const before = environment.ledger.requests('mint').length
      await fixture.failure(
        issuer.mint({ organization: 'acme', description: 'd', permanent: true }, live),
      )
      t.equal(environment.ledger.requests('mint').length, before + 2)
    }
  },
)

t.test('the environment down costs no login, and its return is used at once', async t => {
  const fixture = await startFixture(t)
  const { environment, failure, mint } = fixture
  environment.faults.set('*', { down: true })
  for (let tries = 0; tries < 8; tries++) t.match(await failure(mint()), { code: 'network' })
  environment.faults.clear()
  await mint()
  t.strictSame(loginsOf(fixture), ['api_key granted'])
})

import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type Fixture, live, startFixture } from './issuer.ts'

const day = 86_400_000

const loginsOf = ({ environment }: Fixture) =>
  environment.ledger.logins().map(({ kind, outcome }) => `${kind} ${outcome}`)

function changed({ issuer }: Fixture): Promise<void> {
  return new Promise(resolve => issuer.onCredentialChange(resolve))
}

t.test('a wrong API key is tried once, and the right one as soon as it exists', async t => {
  const fixture = await startFixture(t)
  const { environment, issuer, failure, mint, count } = fixture
  await fixture.credential('api-key', 'a-wrong-key')
  issuer.start()
  const error = await failure(mint())
  t.match(error, { kind: 'locked', scope: 'environment', code: 'login_refused' })
  t.match(error.message, /not tried again before the credential files change/)
  for (let tries = 0; tries < 20; tries++) await failure(mint())
  t.strictSame(loginsOf(fixture), ['api_key unauthorized'])
  t.equal(issuer.problem(), error)
  t.equal(await count('pullpass_logins_total', { outcome: 'login_refused' }), 1)
  const change = changed(fixture)
  await fixture.credential('api-key', environment.apiKey)
  await change
  t.equal(issuer.problem(), undefined)
  await mint()
  t.strictSame(loginsOf(fixture), ['api_key unauthorized', 'api_key granted'])
})

t.test('every kind of refused login is remembered', async t => {
  const table = [
    ['uaa', 'locked', 'account_locked'],
    ['uaa', 'federated', 'federated_user'],
    ['uaa', 'password_expired', 'password_expired'],
    ['iam', 'federated', 'federated_user'],
  ] as const
  for (const [login, refuse, code] of table) {
    const fixture = await startFixture(t, { login })
    const { environment, failure, mint } = fixture
    await fixture.credential('api-key', undefined)
    await fixture.credential('username', environment.user.name)
    await fixture.credential('password', environment.user.password)
    environment.faults.set('login', { refuse })
    t.match(await failure(mint()), { kind: 'locked', scope: 'environment', code })
    environment.faults.clear()
    t.match(await failure(mint()), { kind: 'locked', code })
    t.equal(environment.ledger.logins().length, 1, `${login} ${refuse}`)
  }
})

t.test('a key that IAM does not know is tried once', async t => {
  const fixture = await startFixture(t, { login: 'iam' })
  const { failure, mint } = fixture
  await fixture.credential('api-key', 'a-wrong-key')
  const error = await failure(mint())
  t.match(error, { kind: 'locked', code: 'login_refused', message: /BXNIM0415E/ })
  await failure(mint())
  t.strictSame(loginsOf(fixture), ['iam_api_key BXNIM0415E'])
})

t.test('a wrong key does not lock the account if the login server is too slow', async t => {
  const fixture = await startFixture(t, { timeoutMs: 150 })
  const { environment, failure, mint, advance } = fixture
  await fixture.credential('api-key', 'a-wrong-key')
  environment.faults.set('login', { answerLatencyMs: 500 })
  for (let tries = 0; tries < 3; tries++) t.match(await failure(mint()), { code: 'timeout' })
  const paused = await failure(mint())
  t.match(paused, { kind: 'transient', code: 'login_paused' })
  t.ok((paused.retryAfterMs ?? 0) > 590_000)
  t.equal(environment.ledger.logins().length, 3)
  advance(601_000)
  t.match(await failure(mint()), { code: 'timeout' })
  t.match(await failure(mint()), { code: 'login_paused' })
  t.equal(environment.ledger.logins().length, 4)
  await fixture.credential('api-key', environment.apiKey)
  environment.faults.clear()
  await mint()
})

t.test('IAM also returns UAA tokens, at its path of 2017 and at its current path', async t => {
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

t.test('user name and password are used if there is no API key', async t => {
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

t.test('missing credentials are named, and used as soon as they exist', async t => {
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

t.test('a change of the symbolic link of a mounted Secret is noticed', async t => {
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

t.test('new credentials in the files end the session of the previous ones', async t => {
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

t.test('a session is renewed at 80 % of its lifetime, once for all callers', async t => {
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

t.test('a refresh token that changes with every use is replaced by the new one', async t => {
  const fixture = await startFixture(t)
  const { environment, advance, mint } = fixture
  environment.settings.rotateRefreshTokens = true
  for (let days = 0; days < 4; days++) {
    await mint()
    advance(14 * day)
  }
  t.strictSame(loginsOf(fixture), ['api_key granted', ...Array(3).fill('refresh granted')])
})

t.test('an expired refresh token leads to a login', async t => {
  for (const login of ['uaa', 'iam'] as const) {
    const fixture = await startFixture(t, { login })
    const { environment, advance, mint } = fixture
    await mint()
    if (login === 'uaa') environment.revokeRefreshTokens()
    else environment.clock.advance(60 * day)
    advance(60 * day)
    await mint()
    const kinds = environment.ledger.logins().map(({ kind }) => kind.replace('iam_', ''))
    t.strictSame(kinds, ['api_key', 'refresh', 'api_key'])
  }
})

t.test('a session that cannot be renewed yet is used until it expires', async t => {
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

t.test('a refused access token is renewed once, and the request is repeated once', async t => {
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
    await fixture.failure(issuer.mint('acme', 'd', live))
    t.equal(environment.ledger.requests('mint').length, before + 2)
  }
})

t.test('an environment that is down costs no login, and is used when it is back', async t => {
  const fixture = await startFixture(t)
  const { environment, failure, mint } = fixture
  environment.faults.set('*', { down: true })
  for (let tries = 0; tries < 8; tries++) t.match(await failure(mint()), { code: 'network' })
  environment.faults.clear()
  await mint()
  t.strictSame(loginsOf(fixture), ['api_key granted'])
})

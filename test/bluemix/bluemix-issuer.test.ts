import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import t from 'tap'
import { oddNames } from '../../sandbox/bluemix/residents.ts'
import { createRequest } from '../../src/bluemix/http/request.ts'
import { createOrganizations } from '../../src/bluemix/organizations.ts'
import { live, startFixture } from './issuer.ts'

t.test('steps 1 to 4 of the procedure give a permanent token that can only pull', async t => {
  const { environment, issuer, log, count } = await startFixture(t)
  const token = await issuer.mint('acme', 'pullpass/uid/shop', live)
  const [minted, ...others] = environment.ledger.mints()
  t.strictSame(others, [])
  const description = 'pullpass/uid/shop'
  t.match(minted, { organization: 'acme', description, permanent: true, write: false })
  t.equal(token.id, minted?.id)
  t.equal(token.expiresAt, undefined)
  t.strictSame(
    environment.ledger.requests().map(({ operation, method, host }) => [operation, method, host]),
    [
      ['info', 'GET', 'api.dedicated.example.com'],
      ['login', 'POST', 'login.dedicated.example.com'],
      ['organizations', 'GET', 'api.dedicated.example.com'],
      ['mint', 'POST', 'registry.dedicated.example.com'],
    ],
  )
  t.match(log(), /environment discovered.*logged in.*token minted/s)
  t.match(log(), token.id)
  t.equal(await count('pullpass_logins_total', { outcome: 'success' }), 1)
  const minting = { operation: 'mint', code: '200' }
  t.equal(await count('pullpass_bluemix_requests_total', minting), 1)
})

t.test('a second mint asks for neither login nor organization again', async t => {
  const { environment, mint } = await startFixture(t)
  await Promise.all(['a', 'b', 'c', 'd'].map(name => mint(`pullpass/uid/${name}`)))
  await mint('pullpass/uid/e')
  const { ledger } = environment
  t.equal(ledger.requests('info').length, 1)
  t.equal(ledger.logins().length, 1)
  t.equal(ledger.requests('organizations').length, 1)
  t.equal(ledger.mints().length, 5)
})

t.test('an organization with any name is found, with v2 and with v3', async t => {
  for (const v2Disabled of [false, true]) {
    const { environment, mint } = await startFixture(t)
    environment.settings.v2Disabled = v2Disabled
    for (const name of [...oddNames, 'ACME', 'mixedcase']) await mint(`d/${name}`, name)
    t.strictSame(
      environment.ledger.mints().map(({ organization }) => organization),
      [...oddNames, 'acme', 'MixedCase'],
    )
    const paths = new Set(environment.ledger.requests('organizations').map(({ path }) => path))
    t.strictSame([...paths], [v2Disabled ? '/v3/organizations' : '/v2/organizations'])
  }
})

t.test('an organization that is given by its GUID is not looked up', async t => {
  const { environment, mint } = await startFixture(t)
  await mint('d', environment.organization('acme-shop').guid)
  t.match(environment.ledger.mints(), [{ organization: 'acme-shop' }])
  t.equal(environment.ledger.requests('organizations').length, 0)
})

t.test('an organization is refused until the user can see it', async t => {
  const { environment, issuer, failure, advance, mint } = await startFixture(t)
  const error = await failure(mint('d', 'hidden'))
  t.match(error, { code: 'organization_not_found', kind: 'permanent', scope: 'organization' })
  t.match(error.message, /"hidden".*spelling.*member/)
  await failure(mint('d', 'hidden'))
  t.equal(environment.ledger.requests('organizations').length, 1, 'remembered for a moment')
  environment.organization('hidden').members.add(environment.user.id)
  advance(11_000)
  await mint('d', 'hidden')
  t.match(environment.ledger.mints(), [{ organization: 'hidden' }])
  t.equal(issuer.problem(), undefined)
})

t.test('two organizations whose names differ only in case are refused as ambiguous', async t => {
  const { environment, failure, mint } = await startFixture(t)
  environment.addOrganization({ name: 'Acme', members: [environment.user], duplicate: true })
  t.match(await failure(mint()), { code: 'organization_ambiguous', scope: 'organization' })
  t.strictSame(environment.ledger.mints(), [])
})

t.test('the search for an organization reads all pages', async t => {
  for (const v2Disabled of [false, true]) {
    const { environment, failure, mint } = await startFixture(t)
    environment.settings.v2Disabled = v2Disabled
    for (let count = 0; count < 150; count++) {
      environment.addOrganization({ name: 'many', members: [environment.user], duplicate: true })
    }
    t.match(await failure(mint('d', 'many')), { code: 'organization_ambiguous' })
    t.equal(environment.ledger.requests('organizations').length, 2)
  }
})

t.test('a next page on another host is not requested, to protect the access token', async t => {
  const api = 'https://api.d.example.com'
  const elsewhere = [
    'https://evil.io/v3/organizations',
    '//evil.io/v2',
    'http://api.d.example.com/',
  ]
  for (const next of elsewhere) {
    const asked: string[] = []
    const json = { resources: [], next_url: next, pagination: { next: { href: next } } }
    const organizations = createOrganizations({
      api,
      session: {
        refusal: () => undefined,
        authorized: async ({ url }) => {
          asked.push(url)
          return { origin: api, status: 200, headers: {}, json, sent: [] }
        },
      },
      discovery: { endpoints: async () => ({ login: api, version: 'v2' }), forget: () => {} },
      now: Date.now,
      closing: live,
    })
    await t.rejects(organizations.guid('acme', live), { code: 'unexpected_answer' }, next)
    t.equal(asked.length, 1)
  }
})

t.test('a response of the environment that is too large is not read to its end', async t => {
  const { environment, failure } = await startFixture(t)
  const dependencies = { logger: pino({ level: 'silent' }), metrics: new Registry(), closing: live }
  const { request, close } = createRequest({
    ...dependencies,
    caFile: environment.caFile,
    timeoutMs: 5000,
  })
  t.teardown(close)
  const url = `https://${environment.hosts.api}/v2/info`
  const ask = { operation: 'discovery', method: 'GET', url, sent: [] } as const
  t.match(await request(ask, live), { status: 200, json: { name: 'Bluemix' } })
  const bounded = request({ ...ask, maxBytes: 100 }, live)
  t.match(await failure(bounded), { code: 'answer_too_large', kind: 'transient' })
})

t.test('an organization that was deleted and created again is looked up again', async t => {
  const { environment, mint } = await startFixture(t)
  await mint('first')
  const former = environment.organization('acme')
  former.members.clear()
  environment.addOrganization({ name: 'acme', members: [environment.user], duplicate: true })
  await Promise.all(['second', 'third', 'fourth'].map(name => mint(name)))
  t.equal(environment.ledger.mints().length, 4)
})

t.test('the error for a user who is not a member says so, with the request ID', async t => {
  const { environment, issuer, failure, mint } = await startFixture(t)
  const { guid } = environment.organization('hidden')
  const error = await failure(mint('d', guid))
  t.match(error, { code: 'not_a_member', kind: 'permanent', scope: 'organization' })
  t.match(error.message, /CRG0009E.*request 72-/)
  for (let tries = 0; tries < 5; tries++) await failure(mint('d', guid))
  const kinds = environment.ledger.logins().map(({ kind }) => kind)
  t.strictSame(kinds, ['api_key', 'refresh'], 'and the session of the others is left alone')
  t.equal(issuer.problem(), undefined)
})

t.test('the list of tokens contains all that the environment knows about them', async t => {
  const { environment, issuer, mint } = await startFixture(t)
  t.strictSame(await issuer.list('acme', live), [])
  const text = await mint('pullpass/uid/shop')
  const [row] = environment.ledger.mints()
  const expected = {
    ...{ id: row?.id, description: 'pullpass/uid/shop', text, expiresAt: undefined },
    ...{ revoked: false, readOnly: true },
  }
  t.strictSame(await issuer.list('acme', live), [expected])
  environment.faults.set('list', { tokenText: 'absent' })
  t.match(await issuer.list('acme', live), [{ text: undefined }])
  environment.faults.set('list', { tokenText: 'empty' })
  t.match(await issuer.list('acme', live), [{ text: undefined }])
  t.strictSame(await issuer.list('acme-shop', live), [])
})

t.test('an environment that cannot list tokens is recognized', async t => {
  const { environment, issuer, failure } = await startFixture(t)
  for (const status of [404, 501]) {
    environment.faults.set('list', { fail: 'unsupported', status })
    t.equal(await issuer.list('acme', live), 'unsupported')
  }
  environment.faults.set('list', { fail: 'error_text' })
  t.match(await failure(issuer.list('acme', live)), { code: 'unavailable', kind: 'transient' })
})

t.test('a token is revoked by its ID, and a missing token counts as revoked', async t => {
  const { environment, issuer, failure, mint } = await startFixture(t)
  await mint('one')
  await mint('two')
  const [one] = environment.ledger.mints()
  for (const revokeStatus of [200, 204] as const) {
    environment.settings.revokeStatus = revokeStatus
    await issuer.revoke('acme', one?.id ?? '', live)
  }
  t.match(environment.ledger.revokes(), [{ id: one?.id }])
  t.match(environment.ledger.liveTokens(), [{ description: 'two' }])
  const before = environment.ledger.requests().length
  for (const id of ['', '.', '..', 'a/b', '?secondaryOwner=two', 'a b']) {
    t.match(await failure(issuer.revoke('acme', id, live)), { code: 'unusable_id' }, id)
  }
  t.equal(environment.ledger.requests().length, before, 'nothing was sent')
})

t.test('the registry answers whether it accepts a token', async t => {
  const { environment, issuer, failure, mint } = await startFixture(t)
  const text = await mint()
  t.equal(await issuer.accepts(text, live), true)
  t.equal(await issuer.accepts('something.else', live), false)
  environment.settings.icrMode = true
  t.equal(await issuer.accepts('something.else', live), false)
  t.equal(await issuer.accepts(text, live), true)
  for (const fail of ['error_html', 'rate_limited', 'reset', 'unsupported'] as const) {
    environment.faults.set('oauth', { fail })
    await failure(issuer.accepts(text, live))
  }
  environment.faults.clear()
  environment.faults.set('registry', { fail: 'unavailable' })
  t.match(await failure(issuer.accepts(text, live)), { code: 'unavailable', kind: 'transient' })
  environment.faults.clear()
  const [row] = environment.ledger.mints()
  await issuer.revoke('acme', row?.id ?? '', live)
  t.equal(await issuer.accepts(text, live), false)
})

t.test('a mint whose response was lost fails and is not repeated', async t => {
  const { environment, issuer, failure, mint } = await startFixture(t)
  environment.faults.set('mint', { fail: 'reset', when: 'after', times: 1 })
  t.match(await failure(mint('lost')), { kind: 'transient', scope: 'environment' })
  t.equal(environment.ledger.mints().length, 1)
  environment.faults.set('mint', { fail: 'truncated', times: 1 })
  t.match(await failure(mint('half')), { kind: 'transient', scope: 'environment' })
  t.equal(environment.ledger.mints().length, 2)
  t.match(await issuer.list('acme', live), [{ description: 'lost' }, { description: 'half' }])
  const descriptions = [{ description: 'lost' }, { description: 'half' }]
  t.match(environment.ledger.liveTokens(), descriptions)
})

t.test('failures of the environment are reported until a request succeeds', async t => {
  const operations = ['info', 'login', 'organizations', 'mint'] as const
  const table = [
    ['unavailable', 'unavailable'],
    ['error_html', 'unavailable'],
    ['error_text', 'unavailable'],
    ['reset', 'network'],
  ] as const
  for (const operation of operations) {
    const { environment, issuer, failure, mint } = await startFixture(t)
    for (const [fail, code] of table) {
      environment.faults.set(operation, { fail })
      const error = await failure(mint())
      t.match(error, { code, kind: 'transient', scope: 'environment' }, `${operation} ${fail}`)
      t.equal(issuer.problem(), error)
      environment.faults.clear()
    }
    await mint(operation)
    t.equal(issuer.problem(), undefined)
  }
})

t.test('a response of the environment that does not arrive in time is a failure', async t => {
  const { environment, failure, mint } = await startFixture(t, { timeoutMs: 500 })
  environment.faults.set('mint', { latencyMs: 60_000 })
  t.match(await failure(mint()), { code: 'timeout', kind: 'transient', scope: 'environment' })
})

t.test('a rate limit of the Cloud Controller sets the time of the next attempt', async t => {
  const { environment, failure, mint } = await startFixture(t)
  environment.faults.set('organizations', { fail: 'rate_limited', retryAfterSeconds: 30 })
  const error = await failure(mint())
  t.match(error, { code: 'rate_limited', kind: 'transient', scope: 'environment' })
  t.ok(Math.abs((error.retryAfterMs ?? 0) - 30_000) < 5000, `${error.retryAfterMs}`)
})

t.test('indented JSON from the environment is read', async t => {
  const { environment, issuer, mint } = await startFixture(t)
  environment.settings.prettyPrint = true
  t.equal(await issuer.accepts(await mint(), live), true)
})

t.test('a canceled caller does not stop requests that others share', async t => {
  const { environment, issuer, failure } = await startFixture(t)
  const leaving = new AbortController()
  environment.on('login', () => leaving.abort())
  const left = failure(issuer.mint('acme', 'left', leaving.signal))
  const stayed = issuer.mint('acme', 'stayed', live)
  t.match(await left, { code: 'aborted', kind: 'transient', scope: 'organization' })
  await stayed
  t.equal(environment.ledger.logins().length, 1)
  t.match(environment.ledger.mints(), [{ description: 'stayed' }])
  t.match(await failure(issuer.mint('acme', 'd', AbortSignal.abort())), { code: 'aborted' })
})

t.test('a closed issuer sends no requests', async t => {
  const { environment, issuer, failure, mint } = await startFixture(t)
  await mint()
  environment.faults.set('mint', { latencyMs: 60_000 })
  const under = failure(mint())
  await issuer.close()
  t.match(await under, { code: 'aborted' })
  t.match(await failure(mint()), { code: 'aborted' })
})

t.test('a private CA is trusted only if configured, and is read again on change', async t => {
  const without = await startFixture(t, { caFile: undefined })
  const error = await without.failure(without.mint())
  t.match(error, { code: 'network', kind: 'transient', message: /set bluemix\.caFile/ })
  t.strictSame(without.environment.ledger.requests(), [])

  const folder = await mkdtemp(join(tmpdir(), 'pullpass-ca-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const caFile = join(folder, 'ca.crt')
  const { environment, failure, mint } = await startFixture(t, { caFile })
  t.match(await failure(mint()), { code: 'ca_unusable', message: caFile })
  await writeFile(caFile, without.environment.ca)
  t.match(await failure(mint()), { code: 'network' })
  await writeFile(caFile, environment.ca)
  await mint()
  t.equal(environment.ledger.mints().length, 1)
})

t.test('credentials are sent over HTTPS only', async t => {
  const { environment, failure, mint } = await startFixture(t, {
    registryUrl: 'http://127.0.0.1:1',
  })
  t.match(await failure(mint()), { code: 'insecure_address', kind: 'permanent' })
  t.strictSame(environment.ledger.mints(), [])
})

t.test('a proxy that does not answer is reported as a network failure', async t => {
  const { environment, failure, mint } = await startFixture(t)
  process.env.HTTPS_PROXY = 'http://127.0.0.1:1'
  t.match(await failure(mint()), { code: 'network', kind: 'transient', message: /ECONNREFUSED/ })
  t.strictSame(environment.ledger.requests(), [])
})

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
  const token = await issuer.mint(
    { organization: 'acme', description: 'pullpass/uid/shop', permanent: true },
    live,
  )
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
  t.equal(error.organization, 'hidden')
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

t.test('a suspended organization is refused, and used once it is active again', async t => {
  for (const v2Disabled of [false, true]) {
    const { environment, failure, advance, mint } = await startFixture(t)
    environment.settings.v2Disabled = v2Disabled
    const acme = environment.organization('acme')
    acme.suspended = true
    const error = await failure(mint())
    t.match(error, { code: 'organization_suspended', kind: 'permanent', organization: 'acme' })
    acme.suspended = false
    advance(11_000)
    await mint()
    acme.suspended = true
    t.match(await failure(mint()), { code: 'not_authorized', message: /CRG0020E/ })
  }
})

t.test('a cloud controller without its UAA is a failure of the environment', async t => {
  for (const v2Disabled of [false, true]) {
    const { environment, failure, mint } = await startFixture(t)
    environment.settings.v2Disabled = v2Disabled
    environment.faults.set('organizations', { fail: 'uaa_unavailable' })
    const error = await failure(mint())
    t.match(error, { code: 'unavailable', scope: 'environment', request: 'organizations' })
    t.match(error.message, /CF-UaaUnavailable/)
  }
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
    const organizations = createOrganizations(
      {
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
      },
      { api },
    )
    await t.rejects(organizations.guid('acme', live), { code: 'unexpected_answer' }, next)
    t.equal(asked.length, 1)
  }
})

t.test('a response of the environment that is too large is not read to its end', async t => {
  const { environment, failure } = await startFixture(t)
  const dependencies = { logger: pino({ level: 'silent' }), metrics: new Registry(), closing: live }
  const { request, close } = createRequest(dependencies, {
    caFile: environment.caFile,
    timeoutMs: 5000,
  })
  t.teardown(close)
  const url = `https://${environment.hosts.api}/v2/info`
  const ask = { operation: 'discovery', method: 'GET', url, sent: [] } as const
  t.match(await request(ask, live), { status: 200, json: { name: 'Bluemix' } })
  environment.faults.set('info', { paddingBytes: 1024 * 1024 })
  t.match(await failure(request(ask, live)), { code: 'answer_too_large', kind: 'transient' })
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
  const { environment, list, mint } = await startFixture(t)
  t.strictSame(await list('acme'), [])
  const text = await mint('pullpass/uid/shop')
  const [row] = environment.ledger.mints()
  const expected = {
    ...{ id: row?.id, description: 'pullpass/uid/shop', text, expiresAt: undefined },
    ...{ revoked: false, readOnly: true },
  }
  t.strictSame(await list('acme'), [expected])
  environment.faults.set('list', { tokenText: 'absent' })
  t.match(await list('acme'), [{ text: undefined }])
  environment.faults.set('list', { tokenText: 'empty' })
  t.match(await list('acme'), [{ text: undefined }])
  t.strictSame(await list('acme-shop'), [])
})

t.test('an environment that cannot list tokens is recognized', async t => {
  const { environment, list, failure } = await startFixture(t)
  for (const status of [404, 501]) {
    environment.faults.set('list', { fail: 'unsupported', status })
    t.equal(await list('acme'), 'unsupported')
  }
  environment.faults.set('list', { fail: 'error_text' })
  t.match(await failure(list('acme')), { code: 'unavailable', kind: 'transient' })
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
  t.match(environment.ledger.requests('oauth'), [{ method: 'POST' }])
  t.equal(await issuer.accepts('something.else', live), false)
  for (const fail of ['error_html', 'rate_limited', 'reset', 'unsupported'] as const) {
    environment.faults.set('oauth', { fail })
    t.match(await failure(issuer.accepts(text, live)), { scope: 'environment' })
  }
  environment.faults.clear()
  environment.faults.set('registry', { fail: 'unavailable' })
  t.match(await failure(issuer.accepts(text, live)), { code: 'unavailable', kind: 'transient' })
  environment.faults.clear()
  const [row] = environment.ledger.mints()
  await issuer.revoke('acme', row?.id ?? '', live)
  t.equal(await issuer.accepts(text, live), false)
})

t.test('a realm of one method hides no refused token, and a 400 refuses none', async t => {
  const { environment, issuer, failure, mint } = await startFixture(t)
  const { settings } = environment
  const text = await mint()
  const accepted = (token: string) => issuer.accepts(token, live)
  for (const methods of [['GET'], ['POST'], ['GET', 'POST']] as const) {
    for (const status of [401, 404, 405] as const) {
      settings.realmMethods = [...methods]
      settings.realmOtherStatus = status
      t.equal(await accepted(text), true, `${methods} ${status}`)
      t.equal(await accepted('something.else'), false, `${methods} ${status}`)
    }
    settings.realmOtherStatus = 400
    t.equal(await accepted(text), true, `${methods} 400`)
    if (methods.length === 1) await failure(accepted('something.else'))
  }
  settings.icrMode = true
  t.equal(await accepted(text), true)
  await failure(accepted('something.else'))
})

t.test('the text of one token is read by its id', async t => {
  const { environment, issuer, failure, mint } = await startFixture(t)
  const text = await mint()
  const id = environment.ledger.mints()[0]?.id ?? ''
  const read = () => issuer.text('acme', id, live)
  t.equal(await read(), text)
  for (const tokenText of ['absent', 'empty'] as const) {
    environment.faults.set('get', { tokenText })
    t.equal(await read(), undefined, tokenText)
  }
  for (const status of [404, 405, 501]) {
    environment.faults.set('get', { fail: 'unsupported', status })
    t.equal(await read(), undefined, `an environment without this request: ${status}`)
  }
  environment.faults.set('get', { fail: 'unavailable' })
  t.match(await failure(read()), { code: 'unavailable', scope: 'organization' })
  environment.faults.clear()
  t.equal(await issuer.text('acme-shop', id, live), 'gone')
  await issuer.revoke('acme', id, live)
  t.equal(await read(), 'gone')
  for (const odd of ['', '..', 'a/b']) {
    const failed = failure(issuer.text('acme', odd, live))
    t.match(await failed, { code: 'unusable_id', organization: 'acme' })
  }
})

t.test('a token can be minted that expires by itself', async t => {
  const { environment, issuer } = await startFixture(t)
  const wish = { organization: 'acme', description: 'd', permanent: false }
  const { expiresAt } = await issuer.mint(wish, live)
  t.match(environment.ledger.mints(), [{ permanent: false, write: false }])
  const ms = (expiresAt?.getTime() ?? 0) - Date.now()
  t.ok(Math.abs(ms - 86_400_000) < 60_000, `${ms}`)
})

t.test('a token of two parts is minted, listed and checked as any other', async t => {
  const { environment, issuer, list, mint } = await startFixture(t)
  environment.settings.tokenParts = 2
  const text = await mint()
  t.equal(text.split('.').length, 2)
  const id = environment.ledger.mints()[0]?.id ?? ''
  t.match(await list(), [{ id, text }])
  t.equal(await issuer.accepts(text, live), true)
  await issuer.revoke('acme', id, live)
  t.equal(await issuer.accepts(text, live), false)
})

t.test('the header Account is sent where it is set', async t => {
  const account = '0123456789abcdef0123456789abcdef'
  const without = await startFixture(t)
  without.environment.settings.account = account
  t.match(await without.failure(without.mint()), { code: 'not_a_member' })
  const { environment, list, mint } = await startFixture(t, { account })
  environment.settings.account = account
  await mint()
  t.equal((await list()).length, 1)
})

t.test('a list that is cut short or unreadable is a failure', async t => {
  const { environment, failure, list, mint } = await startFixture(t)
  await mint('one')
  await mint('two')
  const faults = [
    [{ fail: 'truncated' }, 'network'],
    [{ fail: 'cut' }, 'unexpected_answer'],
    [{ mostRows: 1, nextUrl: true }, 'unexpected_answer'],
  ] as const
  for (const [fault, code] of faults) {
    environment.faults.set('list', fault)
    t.match(await failure(list()), { code, scope: 'organization', organization: 'acme' }, code)
  }
  environment.faults.set('list', { nextUrl: true })
  t.equal((await list()).length, 2, 'the last page')
})

t.test('a list of 45,000 rows, longer than 16 MiB, is read', async t => {
  const { environment, issuer, mint } = await startFixture(t, { timeoutMs: 60_000 })
  environment.addTokens(
    'acme',
    Array.from({ length: 45_000 }, (_, index) => `somebody else ${index}`),
  )
  await mint('pullpass/uid/shop')
  let rows = 0
  const ours: string[] = []
  const listed = await issuer.list(
    'acme',
    ({ description }) => {
      rows += 1
      if (description.startsWith('pullpass/')) ours.push(description)
    },
    live,
  )
  t.match([listed, rows, ours], ['complete', 45_001, ['pullpass/uid/shop']])
})

t.test('a list may take longer than the time limit, and may not be silent for as long', async t => {
  const { environment, failure, list, mint } = await startFixture(t, { timeoutMs: 3000 })
  await mint()
  environment.faults.set('list', { pauses: { count: 5, ms: 700 } })
  t.equal((await list()).length, 1)
  environment.faults.set('list', { pauses: { count: 1, ms: 60_000 } })
  t.match(await failure(list()), { code: 'timeout', scope: 'organization' })
})

t.test('a mint whose response was lost fails and is not repeated', async t => {
  const { environment, list, failure, mint } = await startFixture(t)
  const lost = { kind: 'transient', scope: 'organization', organization: 'acme', sent: true }
  environment.faults.set('mint', { fail: 'reset', when: 'after', times: 1 })
  t.match(await failure(mint('lost')), lost)
  t.equal(environment.ledger.mints().length, 1)
  environment.faults.set('mint', { fail: 'truncated', times: 1 })
  t.match(await failure(mint('half')), lost)
  t.equal(environment.ledger.mints().length, 2)
  t.match(await list('acme'), [{ description: 'lost' }, { description: 'half' }])
  const descriptions = [{ description: 'lost' }, { description: 'half' }]
  t.match(environment.ledger.liveTokens(), descriptions)
})

const outages = [
  ['unavailable', 'unavailable'],
  ['error_html', 'unavailable'],
  ['error_text', 'unavailable'],
  ['reset', 'network'],
] as const

t.test('failures of the environment are reported until a request succeeds', async t => {
  for (const operation of ['info', 'login', 'organizations', '*'] as const) {
    const { environment, issuer, advance, failure, mint } = await startFixture(t)
    for (const [fail, code] of outages) {
      environment.faults.set(operation, { fail })
      const error = await failure(mint())
      t.match(error, { code, kind: 'transient', scope: 'environment' }, `${operation} ${fail}`)
      t.match(issuer.problem(), { code })
      environment.faults.clear()
      // The lockout guard asks the login server every 30 s.
      advance(30_000)
    }
    await mint(operation)
    t.equal(issuer.problem(), undefined)
  }
})

t.test("an outage of the token API is its organization's while the registry answers", async t => {
  const { environment, issuer, failure, mint } = await startFixture(t)
  await mint('before')
  for (const [fail, code] of [...outages, ['rate_limited', 'rate_limited'] as const]) {
    environment.faults.set('mint', { fail }, 'acme')
    const error = await failure(mint('d', 'acme'))
    t.match(error, { code, kind: 'transient', scope: 'organization', organization: 'acme' }, fail)
    t.match(error.message, '"acme"')
    await mint(fail, 'acme-shop')
  }
  t.equal(issuer.problem(), undefined)
  environment.faults.clear()
  for (const [fail, code] of outages) {
    environment.faults.set('*', { fail })
    t.match(await failure(mint('d', 'acme')), { code, scope: 'environment' }, fail)
  }
})

t.test(
  'an access token that the registry cannot check is a failure of the environment',
  async t => {
    const { environment, failure, mint } = await startFixture(t)
    environment.faults.set('mint', { refuseTokens: 'cannot_authenticate' })
    const code = 'registry_cannot_authenticate'
    t.match(await failure(mint()), { code, kind: 'transient', scope: 'environment' })
  },
)

t.test('a user without the right to manage tokens is named with the organization', async t => {
  const { environment, failure, mint } = await startFixture(t)
  environment.faults.set('mint', { refuseTokens: 'not_authorized' })
  const error = await failure(mint())
  t.match(error, { code: 'not_authorized', kind: 'permanent', organization: 'acme' })
  t.match(error.message, /CRG0020E/)
})

t.test('a response of the environment that does not arrive in time is a failure', async t => {
  const { environment, failure, mint } = await startFixture(t, { timeoutMs: 2000 })
  environment.faults.set('mint', { latencyMs: 60_000 })
  t.match(await failure(mint()), { code: 'timeout', kind: 'transient', scope: 'organization' })
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
  const left = failure(
    issuer.mint({ organization: 'acme', description: 'left', permanent: true }, leaving.signal),
  )
  const stayed = issuer.mint({ organization: 'acme', description: 'stayed', permanent: true }, live)
  t.match(await left, { code: 'aborted', kind: 'transient', scope: 'organization' })
  await stayed
  t.equal(environment.ledger.logins().length, 1)
  t.match(environment.ledger.mints(), [{ description: 'stayed' }])
  t.match(
    await failure(
      issuer.mint({ organization: 'acme', description: 'd', permanent: true }, AbortSignal.abort()),
    ),
    { code: 'aborted' },
  )
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
  t.match(error, { code: 'untrusted_certificate', kind: 'transient', message: /set environmentCa/ })
  t.strictSame(without.environment.ledger.requests(), [])

  const folder = await mkdtemp(join(tmpdir(), 'pullpass-ca-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const caFile = join(folder, 'ca.crt')
  const { environment, failure, mint } = await startFixture(t, { caFile })
  t.match(await failure(mint()), { code: 'ca_unusable', message: caFile })
  await writeFile(caFile, without.environment.ca)
  t.match(await failure(mint()), { code: 'untrusted_certificate' })
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
  t.match(await failure(mint()), {
    code: 'unreachable',
    kind: 'transient',
    message: /proxy\.https \(ECONNREFUSED\)/,
  })
  t.strictSame(environment.ledger.requests(), [])
})

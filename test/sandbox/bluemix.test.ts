import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import t from 'tap'
import { oddNames } from '../../sandbox/bluemix/residents.ts'
import { pullImage, pushTestImage, startRegistry } from '../../sandbox/registry.ts'
import { basic, type Caller, loginPath, startCaller } from './bluemix-caller.ts'

const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())

t.test('the manual procedure gives a permanent token that can only pull', async t => {
  const { environment } = await startCaller(t)
  const curl = async (...given: string[]) => {
    const args = ['-sS', '--proxy', environment.gateway, '--cacert', environment.caFile, ...given]
    return JSON.parse((await promisify(execFile)('curl', args)).stdout)
  }
  const info = await curl('https://api.dedicated.example.com/v2/info')
  t.equal(info.authorization_endpoint, 'https://login.dedicated.example.com/UAALoginServerWAR')
  t.equal(info.token_endpoint, 'https://uaa.dedicated.example.com')
  const key = `password=${environment.apiKey}`
  const form = ['-d', 'grant_type=password', '-d', 'username=apikey', '--data-urlencode', key]
  const session = await curl('-u', 'cf:', ...form, `${info.authorization_endpoint}/oauth/token`)
  const bearer = ['-H', `Authorization: Bearer ${session.access_token}`]
  const api = 'https://api.dedicated.example.com/v2/organizations?q=name:acme'
  const guid = (await curl(...bearer, api)).resources[0].metadata.guid
  const registry = 'https://registry.dedicated.example.com'
  const mint = ['-XPOST', ...bearer, '-H', `Organization: ${guid}`]
  const { token } = await curl(...mint, `${registry}/api/v1/tokens?permanent=true`)
  t.same(Object.keys(claimsOf(token)), ['jti', 'iss'])
  const scope = 'service=registry&scope=repository:acme/app:pull,push'
  const door = await curl('-u', `token:${token}`, `${registry}/oauth/token?${scope}`)
  t.same(claimsOf(door.token).access, [{ type: 'repository', name: 'acme/app', actions: ['pull'] }])
  t.match(environment.ledger.mints(), [{ organization: 'acme', permanent: true, write: false }])
  t.equal(environment.ledger.requests().length, 5)
})

t.test('a wrong token request is refused with the reason', async t => {
  const { environment, call, login } = await startCaller(t)
  const cf = { authorization: basic('cf', '') }
  const good = { grant_type: 'password', username: 'apikey', password: environment.apiKey }
  const post = (form: Record<string, string>) => login(form)
  const table: [string, () => ReturnType<typeof login>, number, string, RegExp | string][] = [
    ['GET', () => call('login', loginPath, { headers: cf }), 405, 'method_not_allowed', /GET/],
    [
      'a query string',
      () => call('login', `${loginPath}?grant_type=password`, { form: good, headers: cf }),
      406,
      'query_string_not_allowed',
      /body/,
    ],
    [
      'JSON instead of a form',
      () => call('login', loginPath, { method: 'POST', body: '{}', headers: cf }),
      400,
      'invalid_request',
      /form/,
    ],
    [
      'a field twice',
      () =>
        call('login', loginPath, {
          method: 'POST',
          body: 'grant_type=password&grant_type=password',
          headers: { ...cf, 'content-type': 'application/x-www-form-urlencoded' },
        }),
      400,
      'invalid_request',
      /form/,
    ],
    ['an unknown field', () => post({ ...good, apikey: 'x' }), 400, 'invalid_request', /apikey/],
    ['no client', () => login(good, { authorization: '' }), 401, 'unauthorized', 'Bad credentials'],
    [
      'a client secret',
      () => login(good, { authorization: basic('cf', 'x') }),
      401,
      'unauthorized',
      'Bad credentials',
    ],
    ['no grant type', () => post({}), 400, 'invalid_request', /grant type/],
    ['an unknown grant', () => post({ grant_type: 'x' }), 400, 'unsupported_grant_type', /x/],
    [
      'a grant cf has not',
      () => post({ grant_type: 'client_credentials' }),
      401,
      'invalid_client',
      'Unauthorized grant type: client_credentials',
    ],
    ['a foreign scope', () => post({ ...good, scope: 'uaa.admin' }), 400, 'invalid_scope', /scope/],
    ['a wrong key', () => post({ ...good, password: 'x' }), 401, 'unauthorized', 'Bad credentials'],
    [
      'a key at the token endpoint',
      () => call('uaa', '/oauth/token', { form: good, headers: cf }),
      401,
      'unauthorized',
      'Bad credentials',
    ],
  ]
  for (const [name, ask, status, error, description] of table) {
    const reply = await ask()
    t.equal(reply.status, status, name)
    t.match(reply.json, { error, error_description: description }, name)
    if (status === 401) t.match(reply.headers['www-authenticate'], /^Basic realm="UAA\/client"/)
  }
  t.equal(environment.ledger.logins().length, table.length)
  t.notOk(environment.ledger.logins().some(({ outcome }) => outcome === 'granted'))
})

t.test('an API key, a password and a one-time code log in, with a complete response', async t => {
  const { environment, call, login } = await startCaller(t)
  environment.user.passcodes.push('a-code-for-once')
  const { name, password } = environment.user
  const fields = ['access_token', 'token_type', 'refresh_token', 'expires_in', 'scope', 'jti']
  const key = { username: 'apikey', password: environment.apiKey }
  for (const form of [key, { username: name, password }, { passcode: 'a-code-for-once' }]) {
    const reply = await login({ grant_type: 'password', ...form, scope: '' })
    t.equal(reply.status, 200)
    t.same(Object.keys(reply.json), fields)
    t.match(reply.json, { token_type: 'bearer', expires_in: 1_209_600 })
    const claims = claimsOf(reply.json.access_token)
    t.match(claims, {
      client_id: 'cf',
      user_name: name,
      iss: `https://${environment.hosts.uaa}/oauth/token`,
    })
    t.ok(claims.aud.includes('cloud_controller'))
  }
  t.equal((await login({ grant_type: 'password', passcode: 'a-code-for-once' })).status, 401)
  const headers = { authorization: basic('cf', '') }
  const form = { grant_type: 'password', username: name, password }
  t.equal((await call('uaa', '/oauth/token', { form, headers })).status, 200)
  const kinds = environment.ledger.logins().map(({ kind }) => kind)
  t.same(kinds, ['api_key', 'password', 'passcode', 'passcode', 'password'])
})

t.test('five failures in 20 minutes lock an account for 5 minutes', async t => {
  const { environment, login } = await startCaller(t)
  const { name, password } = environment.user
  const attempt = async (secret: string) => {
    const reply = await login({ grant_type: 'password', username: name, password: secret })
    return reply.json.error_description ?? 'granted'
  }
  for (let count = 1; count <= 5; count += 1) t.equal(await attempt('x'), 'Bad credentials')
  t.match(await attempt(password), /has been locked/)
  environment.clock.advance(299_000)
  t.match(await attempt(password), /has been locked/)
  environment.clock.advance(2000)
  t.equal(await attempt(password), 'granted')
  for (let count = 1; count <= 4; count += 1) t.equal(await attempt('x'), 'Bad credentials')
  environment.clock.advance(1_200_001)
  t.equal(await attempt('x'), 'Bad credentials')
  t.equal(await attempt(password), 'granted')
})

t.test(
  'a login counts whether or not its answer arrives, and one while locked does not',
  async t => {
    const { environment, login } = await startCaller(t)
    const { name, password } = environment.user
    const attempt = (secret: string) =>
      login({ grant_type: 'password', username: name, password: secret })
    environment.faults.set('login', { fail: 'unavailable' })
    for (let count = 1; count <= 5; count += 1) t.equal((await attempt('x')).status, 503)
    environment.faults.set('login', { fail: 'unavailable', when: 'after' })
    for (let count = 1; count <= 3; count += 1) t.equal((await attempt('x')).status, 503)
    environment.faults.set('login', { fail: 'reset', when: 'after' })
    await t.rejects(attempt('x'))
    environment.faults.set('login', { fail: 'truncated' })
    await t.rejects(attempt('x'))
    environment.faults.clear()
    for (let minutes = 0; minutes < 5; minutes += 1) {
      t.match((await attempt(password)).json.error_description, /has been locked/)
      environment.clock.advance(60_000)
    }
    t.equal((await attempt(password)).status, 200, 'tries while locked do not prolong the lock')
  },
)

t.test('a refresh names no user to count for', async t => {
  const { environment, login } = await startCaller(t)
  for (let count = 1; count <= 9; count += 1) {
    await login({ grant_type: 'refresh_token', refresh_token: 'made-up' })
  }
  const key = { grant_type: 'password', username: 'apikey', password: environment.apiKey }
  t.equal((await login(key)).status, 200)
})

t.test('wrong API keys count together', async t => {
  const { environment, login } = await startCaller(t)
  const form = { grant_type: 'password', username: 'apikey' }
  for (let count = 1; count <= 5; count += 1) await login({ ...form, password: `wrong-${count}` })
  const reply = await login({ ...form, password: environment.apiKey })
  t.match(reply.json.error_description, /has been locked/)
})

t.test('the login error names a federated user or an expired password', async t => {
  const { environment, login } = await startCaller(t)
  const { user } = environment
  const form = { grant_type: 'password', username: user.name, password: user.password }
  const key = { grant_type: 'password', username: 'apikey', password: environment.apiKey }
  user.federated = true
  t.match((await login(form)).json.error_description, /^BMXLS0202E/)
  t.equal((await login(key)).status, 200)
  user.federated = false
  user.passwordExpired = true
  const expired = await login(form)
  t.match([expired.status, expired.json.error], [403, 'access_denied'])
  environment.faults.set('login', { refuse: 'federated' })
  t.match((await login(key)).json.error_description, /^BMXLS0202E/)
  environment.faults.set('login', { refuse: 'locked' })
  t.match((await login(key)).json.error_description, /has been locked/)
})

t.test('a refresh returns the same refresh token, and errors quote it', async t => {
  const { environment, login } = await startCaller(t)
  const key = { grant_type: 'password', username: 'apikey', password: environment.apiKey }
  const first = (await login(key)).json
  const refresh = (token: string) => login({ grant_type: 'refresh_token', refresh_token: token })
  const second = (await refresh(first.refresh_token)).json
  t.equal(second.refresh_token, first.refresh_token)
  t.not(second.access_token, first.access_token)

  environment.settings.rotateRefreshTokens = true
  const third = (await refresh(first.refresh_token)).json
  t.not(third.refresh_token, first.refresh_token)
  const used = await refresh(first.refresh_token)
  t.match([used.status, used.json.error], [401, 'invalid_token'])
  t.ok(used.json.error_description.includes(first.refresh_token))

  environment.user.password = 'another-password'
  t.equal((await refresh(third.refresh_token)).json.error, 'invalid_token')

  const fourth = (await login(key)).json
  environment.clock.advance(2_592_001_000)
  const late = await refresh(fourth.refresh_token)
  t.match(late.json.error_description, `(expired): ${fourth.refresh_token} expired at`)
})

t.test('a refresh token of another client, and one from before another login', async t => {
  const { environment, login } = await startCaller(t)
  const key = { grant_type: 'password', username: 'apikey', password: environment.apiKey }
  const { refresh_token } = (await login(key)).json
  const refresh = () => login({ grant_type: 'refresh_token', refresh_token })
  environment.faults.set('login', { refuse: 'wrong_client' })
  const wrong = await refresh()
  t.match([wrong.status, wrong.json.error], [400, 'invalid_grant'])
  t.match(wrong.json.error_description, `Wrong client for this refresh token: ${refresh_token}`)
  environment.faults.clear()
  environment.settings.uniqueRefreshTokens = true
  t.equal((await refresh()).status, 200)
  await login(key)
  t.match((await refresh()).json, { error: 'invalid_token', error_description: /revoked/ })
})

t.test('UAA exchanges a token of IAM', async t => {
  const { environment, call, login } = await startCaller(t)
  environment.settings.iamGivesUaaTokens = false
  const form = {
    grant_type: 'urn:ibm:params:oauth:grant-type:apikey',
    apikey: environment.apiKey,
    response_type: 'cloud_iam,uaa',
    uaa_client_id: 'cf',
    uaa_client_secret: '',
  }
  const headers = { authorization: basic('bx', 'bx') }
  const { json } = await call('iam', '/oidc/token', { form, headers })
  t.notOk(json.uaa_token)
  const exchange = (token: string) =>
    login({ grant_type: 'iam_token', iam_token: token, scope: '' })
  const { access_token } = (await exchange(json.access_token)).json
  const authorization = `Bearer ${access_token}`
  t.equal((await call('api', '/v2/organizations', { headers: { authorization } })).status, 200)
  for (const token of [json.refresh_token, access_token, 'x']) {
    t.match(await exchange(token), { status: 401, json: { error: 'invalid_token' } })
  }
})

t.test('IAM ends sessions, and may insist on one separator', async t => {
  const { environment, call } = await startCaller(t)
  const uaa = { uaa_client_id: 'cf', uaa_client_secret: '', response_type: 'cloud_iam uaa' }
  const ask = (form: Record<string, string>) =>
    call('iam', '/oidc/token', { form, headers: { authorization: basic('bx', 'bx') } })
  const grant_type = 'urn:ibm:params:oauth:grant-type:apikey'
  const key = { ...uaa, grant_type, apikey: environment.apiKey }
  environment.settings.iamSeparator = ' '
  t.match((await ask({ ...key, response_type: 'cloud_iam,uaa' })).json, {
    errorCode: 'BXNIM0109E',
    errorMessage: /response_type/,
  })
  const { refresh_token } = (await ask(key)).json
  environment.revokeRefreshTokens()
  const ended = await ask({ ...uaa, grant_type: 'refresh_token', refresh_token })
  t.match([ended.status, ended.json.errorCode], [400, 'BXNIM0439E'])
})

t.test('the cloud controller says that UAA is not available', async t => {
  const caller = await startCaller(t)
  const token = await caller.accessToken()
  caller.environment.faults.set('organizations', { fail: 'uaa_unavailable' })
  const v2 = await listV2(caller, token, '')
  t.match([v2.status, v2.json.code, v2.json.error_code], [503, 20004, 'CF-UaaUnavailable'])
  const v3 = await listV3(caller, token, '')
  t.match([v3.status, v3.json.errors[0].code], [503, 20004])
})

t.test('IAM returns four tokens if they are requested', async t => {
  const { environment, call } = await startCaller(t)
  const grant = 'urn:ibm:params:oauth:grant-type:apikey'
  const uaa = { response_type: 'cloud_iam,uaa', uaa_client_id: 'cf', uaa_client_secret: '' }
  const ask = (form: Record<string, string>, path = '/oidc/token') =>
    call('iam', path, { form, headers: { authorization: basic('bx', 'bx') } })
  const key = { grant_type: grant, apikey: environment.apiKey }
  const { json } = await ask({ ...key, ...uaa })
  t.match(json, { token_type: 'Bearer', expires_in: 3600, scope: 'ibm openid' })
  const organizations = (token: string) =>
    call('api', '/v2/organizations', { headers: { authorization: `Bearer ${token}` } })
  t.equal((await organizations(json.uaa_token)).status, 200)
  t.equal((await organizations(json.access_token)).json.code, 1000)
  const again = await ask({
    grant_type: 'refresh_token',
    refresh_token: json.refresh_token,
    ...uaa,
  })
  t.ok(again.json.uaa_token)
  t.notOk((await ask({ ...key, response_type: 'cloud_iam' })).json.uaa_token)

  const federated = environment.addUser({ name: 'far@example.com', federated: true })
  const { name } = environment.user
  const refusals: [Record<string, string>, string][] = [
    [{ grant_type: grant, apikey: 'wrong', ...uaa }, 'BXNIM0415E'],
    [{ grant_type: 'password', username: name, password: 'wrong', ...uaa }, 'BXNIM0602E'],
    [{ grant_type: 'password', username: federated.name, password: 'x', ...uaa }, 'BXNIM0608E'],
    [{ grant_type: 'refresh_token', refresh_token: 'x', ...uaa }, 'BXNIM0407E'],
    [{ ...key, ...uaa, uaa_client_id: 'bx' }, 'BXNIM0109E'],
    [{ ...key }, 'BXNIM0109E'],
  ]
  for (const [form, code] of refusals) {
    const reply = await ask(form)
    t.match([reply.status, reply.json.errorCode], [400, code])
  }
  environment.settings.iamPaths = ['/identity/token']
  t.equal((await ask({ ...key, ...uaa })).status, 404)
  t.equal((await ask({ ...key, ...uaa }, '/identity/token')).status, 200)
})

const listV2 = ({ call }: Caller, token: string, query: string) =>
  call('api', `/v2/organizations${query}`, { headers: { authorization: `bEaReR ${token}` } })
const listV3 = ({ call }: Caller, token: string, query: string) =>
  call('api', `/v3/organizations${query}`, { headers: { authorization: `bearer ${token}` } })

t.test('an organization of any name is found only if it is quoted correctly', async t => {
  const caller = await startCaller(t)
  const { environment } = caller
  const token = await caller.accessToken()
  for (const name of [...oddNames, 'acme', 'acme-shop']) {
    const quoted = encodeURIComponent(name.replaceAll(';', ';;'))
    const { guid } = environment.organization(name)
    const v2 = await listV2(caller, token, `?q=name:${quoted}`)
    t.same(
      v2.json.resources.map((each: Row) => each.metadata.guid),
      [guid],
      `v2 ${name}`,
    )
    const twice = encodeURIComponent(encodeURIComponent(name))
    const v3 = await listV3(caller, token, `?names=${twice}`)
    t.same(
      v3.json.resources.map((each: { guid: string }) => each.guid),
      [guid],
      `v3 ${name}`,
    )
  }
  const misses: [typeof listV2, string][] = [
    [listV2, '?q=name:plus+name'],
    [listV3, `?names=${encodeURIComponent('plus+name')}`],
    [listV3, `?names=${encodeURIComponent('comma,name')}`],
    [listV3, `?names=${encodeURIComponent('per%20cent')}`],
    [listV2, '?q=name:hidden'],
    [listV2, '?q=name:acm'],
  ]
  for (const [list, query] of misses) {
    const reply = await list(caller, token, query)
    t.match([reply.status, reply.json.resources], [200, []], query)
    t.equal(reply.json.resources.length, 0, query)
  }
  t.equal((await listV2(caller, token, '?q=name:ACME')).json.total_results, 1)
  t.equal((await listV3(caller, token, '?names=ACME,acme-shop')).json.resources.length, 2)
  t.equal((await listV2(caller, token, '?q=name:semi;colon')).status, 400)
})

interface Row {
  metadata: { guid: string }
}

t.test('lists are paged, with a path in v2 and a URL in v3', async t => {
  const caller = await startCaller(t)
  const token = await caller.accessToken()
  const first = (await listV2(caller, token, '')).json
  t.match([first.resources.length, first.total_pages, first.prev_url], [50, 2, null])
  t.match(first.next_url, /^\/v2\/organizations\?order-direction=asc&page=2&results-per-page=50/)
  const second = (await listV2(caller, token, first.next_url.slice('/v2/organizations'.length)))
    .json
  t.equal(second.resources.length, first.total_results - 50)
  t.equal(second.next_url, null)
  const v3 = (await listV3(caller, token, '?per_page=70')).json
  t.match(v3.pagination.next.href, /^https:\/\/api\.dedicated\.example\.com\/v3\/organizations\?/)
  const rest = (await listV3(caller, token, new URL(v3.pagination.next.href).search)).json
  t.equal(rest.pagination.next, null)
})

t.test('the Cloud Controller names what is wrong with a request', async t => {
  const caller = await startCaller(t)
  const { environment, call } = caller
  const token = await caller.accessToken()
  const bearer = { headers: { authorization: `Bearer ${token}` } }
  const hidden = environment.organization('hidden').guid
  const { refresh_token: refreshToken } = (
    await caller.login({ grant_type: 'password', username: 'apikey', password: environment.apiKey })
  ).json
  const narrow = (
    await caller.login({
      ...{ grant_type: 'password', username: 'apikey', password: environment.apiKey },
      scope: 'openid cloud_controller.write',
    })
  ).json.access_token
  const table: [string, object, number, number, string][] = [
    ['', {}, 401, 10002, 'CF-NotAuthenticated'],
    ['', { headers: { authorization: 'Bearer x' } }, 401, 1000, 'CF-InvalidAuthToken'],
    ['', { headers: { authorization: basic('a', 'b') } }, 401, 1000, 'CF-InvalidAuthToken'],
    [
      '',
      { headers: { authorization: `Bearer ${refreshToken}` } },
      401,
      1000,
      'CF-InvalidAuthToken',
    ],
    ['', { headers: { authorization: `Bearer ${narrow}` } }, 403, 10003, 'CF-NotAuthorized'],
  ]
  for (const [path, wish, status, code, name] of table) {
    const v2 = await call('api', `/v2/organizations${path}`, wish)
    t.match([v2.status, v2.json], [status, { code, error_code: name }])
    const v3 = await call('api', `/v3/organizations${path}`, wish)
    t.match([v3.status, v3.json], [status, { errors: [{ code, title: name }] }])
    t.ok(v3.headers['x-vcap-request-id'])
  }
  for (const query of ['?q=nom:x', '?results-per-page=101', '?page=0', '?q=name']) {
    t.match((await listV2(caller, token, query)).json, { code: 10005 }, query)
  }
  const orphaned = await listV3(caller, token, '?name=x')
  t.match([orphaned.status, orphaned.json.errors[0].code], [400, 10005])
  t.equal((await listV3(caller, token, '?per_page=5001')).status, 400)
  const v2 = await call('api', `/v2/organizations/${hidden}`, bearer)
  t.match(
    [v2.status, v2.json.code, v2.json.description],
    [404, 30003, `could not be found: ${hidden}`],
  )
  const v3 = await call('api', `/v3/organizations/${hidden}`, bearer)
  t.match([v3.status, v3.json.errors[0].code], [404, 10010])
  const { guid } = environment.organization('acme')
  t.equal((await call('api', `/v2/organizations/${guid}`, bearer)).json.entity.name, 'acme')

  environment.clock.advance(1_209_601_000)
  t.equal((await listV2(caller, token, '')).json.code, 1000)
})

t.test('with v2 disabled, discovery uses the root and only v3 answers', async t => {
  const caller = await startCaller(t)
  const { environment, call } = caller
  const before = (await call('api', '/')).json.links
  t.match([before.login, before.uaa.href], [undefined, 'https://uaa.dedicated.example.com'])
  environment.settings.v2Disabled = true
  const info = (await call('api', '/v2/info')).json
  t.match(info, { support: 'CF API v2 is disabled', api_version: '' })
  const { links } = (await call('api', '/')).json
  t.equal(links.cloud_controller_v2, undefined)
  t.equal(links.login.href, 'https://login.dedicated.example.com/UAALoginServerWAR')
  const token = await caller.accessToken()
  t.equal((await listV2(caller, token, '')).status, 404)
  t.equal((await listV3(caller, token, '?names=acme')).status, 200)
})

t.test('minting uses exactly three parameters', async t => {
  const { environment, call, tokens, accessToken } = await startCaller(t)
  const uuid5 = /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
  const plain = claimsOf((await tokens('POST')).json.token)
  t.same(Object.keys(plain), ['exp', 'jti', 'iss'])
  t.match(plain, { jti: uuid5, iss: environment.hosts.registry })
  t.ok(Math.abs(plain.exp - Date.now() / 1000 - 86_400) < 5)
  await tokens('POST', '?permanent=true&write=true&description=pullpass%2Fuid%2Fshop')
  t.match(environment.ledger.mints(), [
    { permanent: false, write: false, description: '' },
    { permanent: true, write: true, description: 'pullpass/uid/shop' },
  ])
  t.equal(environment.ledger.liveTokens('pullpass/uid/shop').length, 1)

  const queries = ['?readwrite=true', '?permanent=yes', '?permanent=true&permanent=true', '?write=']
  for (const query of queries) t.equal((await tokens('POST', query)).status, 400, query)
  const authorization = `Bearer ${await accessToken()}`
  const organization = environment.organization('acme').guid
  const good = { authorization, organization }
  const withBody = { method: 'POST', body: '{}', headers: good }
  t.equal((await call('registry', '/api/v1/tokens', withBody)).status, 400)

  const refused: Record<string, Record<string, string>> = {
    'no token': { organization },
    'no organization': { authorization },
    'a name for an organization': { ...good, organization: 'acme' },
    'a foreign organization': { ...good, organization: environment.organization('hidden').guid },
    'another spelling of Bearer': { ...good, authorization: authorization.replace('B', 'b') },
    'a token of another signer': { ...good, authorization: `${authorization}x` },
  }
  for (const [name, headers] of Object.entries(refused)) {
    const reply = await call('registry', '/api/v1/tokens', { method: 'POST', headers })
    t.match([reply.status, reply.json.code], [401, 'CRG0009E'], name)
    t.match(reply.json['request-id'], /^\d+-\d{10}\.\d{3}-\d+$/)
  }
  environment.organization('acme').members.clear()
  t.equal((await tokens('POST')).status, 401)
  t.equal(environment.ledger.mints().length, 2)
})

t.test('tokens can be listed, read and revoked', async t => {
  const { environment, tokens, mint } = await startCaller(t)
  const text = await mint('?permanent=true&description=one')
  await mint('?permanent=true&description=two')
  await mint('?description=two')
  const id: string = claimsOf(text).jti
  const rows = (await tokens('GET')).json.tokens
  t.match(rows[0], { _id: id, owner: environment.organization('acme').guid, token: text })
  t.match(rows[0], { secondary_owner: 'one', readonly: true, revoked: false, expiry: 0 })
  t.type(rows[2].expiry, 'number')
  t.same((await tokens('GET', `/${id}`)).json, { token: text })
  t.equal(
    (await tokens('GET', '', { organization: environment.organization('acme-shop').guid })).json
      .tokens.length,
    0,
  )

  t.equal((await tokens('DELETE', `/${id}`)).status, 204)
  t.equal((await tokens('DELETE', `/${id}`)).status, 404)
  t.equal((await tokens('GET', `/${id}`)).status, 404)
  t.equal((await tokens('GET')).json.tokens[0].revoked, true)
  t.equal((await tokens('DELETE')).status, 400)
  environment.settings.revokeStatus = 200
  t.equal((await tokens('DELETE', '?secondaryOwner=two')).status, 200)
  t.equal(environment.ledger.liveTokens().length, 0)
  t.equal(environment.ledger.revokes().length, 3)

  await mint('?description=short')
  environment.clock.advance(86_401_000)
  t.notOk(
    (await tokens('GET')).json.tokens.some(
      (row: { secondary_owner: string }) => row.secondary_owner === 'short',
    ),
  )
  t.equal(environment.ledger.liveTokens().length, 0)
})

t.test('a list lags, lacks rows, or is cut short', async t => {
  const { environment, tokens, mint } = await startCaller(t)
  const { clock, faults } = environment
  const id: string = claimsOf(await mint('?permanent=true&description=one')).jti
  clock.advance(10_000)
  await mint('?permanent=true&description=two')
  await tokens('DELETE', `/${id}`)
  const shown = async () =>
    (await tokens('GET')).json.tokens.map((row: Record<string, unknown>) => [
      row.secondary_owner,
      row.revoked,
    ])
  t.same(await shown(), [
    ['one', true],
    ['two', false],
  ])
  faults.set('list', { lagMs: 5000 })
  t.same(await shown(), [['one', false]])
  faults.set('list', { lagMs: 60_000 })
  t.same(await shown(), [])
  faults.set('list', { mostRows: 1 })
  const silent = (await tokens('GET')).json
  t.match([silent.tokens.length, silent.next_url], [1, undefined])
  t.equal((await tokens('GET', '?page=2')).status, 400)
  faults.set('list', { mostRows: 1, nextUrl: true })
  t.equal((await tokens('GET')).json.next_url, '/api/v1/tokens?page=2')
  const second = (await tokens('GET', '?page=2')).json
  t.match(second, { tokens: [{ secondary_owner: 'two' }], next_url: null })
  for (const page of ['0', 'x', '2&page=3', '2&size=9']) {
    t.equal((await tokens('GET', `?page=${page}`)).status, 400, page)
  }
  faults.set('list', { mostRows: 2, nextUrl: true })
  t.equal((await tokens('GET')).json.next_url, null)
  faults.set('list', { fail: 'cut' })
  await t.rejects(tokens('GET'), { name: 'SyntaxError' })
  environment.addTokens('acme', ['somebody', 'else'])
  faults.clear()
  t.equal((await shown()).length, 4)
})

t.test('a fault strikes one organization alone', async t => {
  const { environment, tokens } = await startCaller(t)
  const shop = { organization: environment.organization('acme-shop').guid }
  environment.faults.set('list', { fail: 'error_text' }, 'acme')
  environment.faults.set('mint', { fail: 'unavailable' })
  environment.faults.set('mint', { fail: 'error_text' }, 'acme')
  t.equal((await tokens('GET')).status, 500)
  t.equal((await tokens('GET', '', shop)).status, 200)
  t.equal((await tokens('POST')).status, 500)
  t.equal((await tokens('POST', '', shop)).status, 503)
  environment.faults.clear('mint', 'acme')
  t.equal((await tokens('POST')).status, 503)
})

t.test('the same description may give the same token again', async t => {
  const { environment, tokens, mint } = await startCaller(t)
  const query = '?permanent=true&description=one'
  const isAccepted = async () => environment.ledger.liveTokens('one').length
  environment.settings.repeatedDescription = 'same'
  const text = await mint(query)
  t.equal(await mint(query), text)
  t.not(await mint('?permanent=true&description=two'), text)
  t.equal(await isAccepted(), 1)
  const { jti } = claimsOf(text)
  await tokens('DELETE', `/${jti}`)
  t.equal(await isAccepted(), 0)
  t.equal(await mint(query), text)
  t.equal((await tokens('GET', `/${jti}`)).status, 200, 'valid again')
  environment.settings.repeatedDescription = 'same_stays_revoked'
  await tokens('DELETE', `/${jti}`)
  t.equal(await mint(query), text)
  t.equal((await tokens('GET', `/${jti}`)).status, 404)
  t.equal(await isAccepted(), 0)
})

t.test('the token API refuses for the account, the role and the organization', async t => {
  const { environment, tokens } = await startCaller(t)
  const account = '0123456789abcdef0123456789abcdef'
  environment.settings.account = account
  t.match((await tokens('POST')).json, { code: 'CRG0009E' })
  t.equal((await tokens('POST', '', { account })).status, 200)
  environment.settings.account = undefined
  environment.faults.set('mint', { refuseTokens: 'not_authorized' })
  const denied = await tokens('POST')
  t.match([denied.status, denied.json.code], [403, 'CRG0020E'])
  environment.faults.set('mint', { refuseTokens: 'cannot_authenticate' })
  const unchecked = await tokens('POST')
  t.match([unchecked.status, unchecked.json.code], [401, 'CRG0014E'])
  environment.faults.clear()
  environment.organization('acme').suspended = true
  for (const method of ['GET', 'POST']) t.match((await tokens(method)).json, { code: 'CRG0020E' })
})

t.test('the realm supports POST, GET or both', async t => {
  const { environment, call, mint } = await startCaller(t)
  const text = await mint()
  const form = { service: 'registry', grant_type: 'password', username: 'token', password: text }
  const statuses = async () => [
    (await call('registry', '/oauth/token', { form })).status,
    (
      await call('registry', '/oauth/token?service=registry', {
        headers: { authorization: basic('token', text) },
      })
    ).status,
  ]
  t.same(await statuses(), [200, 200])
  environment.settings.realmMethods = ['POST']
  t.same(await statuses(), [200, 405])
  environment.settings.realmMethods = ['GET']
  environment.settings.realmOtherStatus = 400
  t.same(await statuses(), [400, 200])
})

t.test('a token may have two parts', async t => {
  const { environment, tokens, mint } = await startCaller(t)
  environment.settings.tokenParts = 2
  const text = await mint()
  t.equal(text.split('.').length, 2)
  t.same((await tokens('GET', `/${claimsOf(text).jti}`)).json, { token: text })
})

t.test('a suspended organization is shown as such', async t => {
  const { environment, call, accessToken } = await startCaller(t)
  const headers = { authorization: `Bearer ${await accessToken()}` }
  const acme = environment.organization('acme')
  acme.suspended = true
  const v2 = await call('api', `/v2/organizations/${acme.guid}`, { headers })
  t.equal(v2.json.entity.status, 'suspended')
  const v3 = await call('api', `/v3/organizations/${acme.guid}`, { headers })
  t.equal(v3.json.suspended, true)
  const suspended = await call('api', '/v2/organizations?q=status:suspended', { headers })
  t.match(suspended.json.resources, [{ entity: { name: 'acme' } }])
  environment.faults.set('organizations', { fail: 'uaa_unavailable' })
  const down = await call('api', '/v2/organizations', { headers })
  t.match([down.status, down.json], [503, { code: 20004, error_code: 'CF-UaaUnavailable' }])
})

t.test('the registry accepts only a valid token, and only for its rights', async t => {
  const { environment, call, tokens, mint, accessToken } = await startCaller(t)
  const pull = await mint()
  const push = await mint('?permanent=true&write=true')
  const uaa = await accessToken()
  const ask = (user: string, password: string, scope: string) =>
    call('registry', `/oauth/token?service=registry&scope=${encodeURIComponent(scope)}`, {
      headers: { authorization: basic(user, password) },
    })
  const granted = async (user: string, password: string, scope: string) => {
    const { json } = await ask(user, password, scope)
    return claimsOf(json.token).access.map(
      ({ name, actions }: { name: string; actions: string[] }) => `${name}:${actions}`,
    )
  }
  const table: [string, string, string, string[]][] = [
    ['token', pull, 'repository:acme/a:pull', ['acme/a:pull']],
    ['token', pull, 'repository:acme/a:pull,push', ['acme/a:pull']],
    ['token', pull, 'repository:acme/a:push', []],
    ['token', pull, 'repository:acme_shop/a:pull', []],
    ['token', pull, 'repository:acme2/a:pull', []],
    ['token', pull, 'registry:catalog:*', []],
    ['token', push, 'repository:acme/a:pull,push', ['acme/a:pull,push']],
    ['bearer', uaa, 'repository:acme_shop/a:pull,push', ['acme_shop/a:pull,push']],
    ['bearer', uaa, 'repository:hidden/a:pull', []],
  ]
  for (const [user, password, scope, access] of table) {
    t.same(await granted(user, password, scope), access, `${user} ${scope}`)
  }
  const form = { service: 'registry', grant_type: 'password', username: 'token', password: pull }
  const posted = await call('registry', '/oauth/token', {
    form: {
      ...form,
      scope: 'repository:acme/a:pull repository:acme/b:pull',
      client_id: 'containerd',
    },
  })
  t.equal(posted.json.token, posted.json.access_token)
  t.match(posted.json, { expires_in: 300, issued_at: /Z$/ })
  t.equal(claimsOf(posted.json.token).access.length, 2)

  const bearer = { headers: { authorization: `Bearer ${posted.json.token}` } }
  t.equal((await call('registry', '/v2/', bearer)).status, 200)
  const challenge = (await call('registry', '/v2/acme/a/manifests/latest')).headers[
    'www-authenticate'
  ]
  t.equal(
    challenge,
    'Bearer realm="https://registry.dedicated.example.com/oauth/token",service="registry",scope="repository:acme/a:pull"',
  )
  const direct = { headers: { authorization: `Bearer ${pull}` } }
  t.equal((await call('registry', '/v2/', direct)).status, 401)

  for (const [user, password] of [
    ['token', 'x'],
    ['token', uaa],
    ['bearer', pull],
    ['iamapikey', pull],
    ['', ''],
  ] as const) {
    t.equal((await ask(user, password, '')).status, 401, `${user} is refused`)
  }
  t.equal((await ask('token', pull, 'repository')).status, 400)
  t.equal(
    (await call('registry', '/oauth/token', { form: { ...form, service: 'other' } })).status,
    400,
  )
  environment.settings.icrMode = true
  t.equal((await ask('token', 'x', '')).status, 400)
  environment.settings.icrMode = false
  await tokens('DELETE', `/${claimsOf(pull).jti}`)
  t.equal((await ask('token', pull, '')).status, 401)
})

t.test('faults occur where, when and as often as the test says', async t => {
  const caller = await startCaller(t)
  const { environment, call, tokens, login, accessToken } = caller
  const { faults, ledger } = environment
  const authorization = `Bearer ${await accessToken()}`
  const mint = () => tokens('POST', '', { authorization })
  const key = { grant_type: 'password', username: 'apikey', password: environment.apiKey }

  await t.test('a fault can replace the response', async t => {
    faults.set('*', { fail: 'rate_limited', retryAfterSeconds: 7 })
    t.equal((await call('api', '/v2/info')).status, 200, 'discovery is exempt')
    const limited = await listV2(caller, authorization.slice(7), '')
    t.match(
      [limited.status, limited.headers['content-type'], limited.json.code],
      [429, 'text/plain', 10013],
    )
    const wait = Number(limited.headers['retry-after']) - Date.now() / 1000
    t.ok(wait > 4 && wait < 8, 'Retry-After is an epoch')
    const uaa = await login(key)
    t.match([uaa.status, uaa.headers['retry-after'], uaa.json], [429, undefined, undefined])
    faults.set('*', { fail: 'unavailable' })
    t.match(await mint(), { status: 503, headers: { 'content-type': 'text/html' } })
    faults.set('mint', { fail: 'error_text' })
    t.match(await mint(), { status: 500, text: 'Internal Error' })
    faults.clear()
    faults.set('list', { fail: 'unsupported', status: 501 })
    t.equal((await tokens('GET', '', { authorization })).status, 501)
    t.equal(ledger.mints().length, 0)
  })

  await t.test('a fault can break the connection before or after the work', async t => {
    faults.set('mint', { fail: 'reset' })
    await t.rejects(mint())
    t.equal(ledger.mints().length, 0)
    faults.set('mint', { fail: 'reset', when: 'after' })
    const observed: (number | undefined)[] = []
    const stop = environment.on('mint', ({ status }) => void observed.push(status))
    await t.rejects(mint())
    stop()
    t.same(observed, [200], 'listeners hear of the work all the same')
    t.equal(ledger.mints().length, 1)
    faults.set('mint', { fail: 'truncated' })
    await t.rejects(mint())
    t.equal(ledger.mints().length, 2)
    faults.set('mint', { fail: 'unavailable', when: 'after', times: 1 })
    t.equal((await mint()).status, 503)
    t.equal((await mint()).status, 200)
    t.equal(ledger.mints().length, 4)
    faults.set('*', { down: true })
    await t.rejects(call('api', '/v2/info'))
    faults.clear()
    t.equal((await call('api', '/v2/info')).status, 200)
  })

  await t.test('a fault can hit a share of the calls, which is the same in each run', async t => {
    const strikes = async () => {
      faults.set('info', { fail: 'unavailable', probability: 0.2, seed: 7 })
      const statuses: number[] = []
      for (let count = 0; count < 100; count += 1) statuses.push((await call('api', '/')).status)
      return statuses
    }
    const [one, two] = [await strikes(), await strikes()]
    t.same(one, two)
    const failed = one.filter(status => status === 503).length
    t.ok(failed > 8 && failed < 35, `${failed} of 100`)
    faults.clear()
  })

  await t.test('a fault can make tokens expired for the registry only', async t => {
    environment.expireAccessTokens('registry')
    t.equal((await listV2(caller, authorization.slice(7), '')).status, 200)
    t.match(await mint(), { status: 401, json: { code: 'CRG0009E' } })
    t.equal((await tokens('POST')).status, 200, 'a new session is taken')
    faults.set('mint', { accessTokens: 'expired' })
    t.equal((await tokens('POST')).status, 401)
    faults.clear()
    environment.expireAccessTokens('everywhere')
    t.match(await listV2(caller, authorization.slice(7), ''), { status: 401, json: { code: 1000 } })
  })

  await t.test('a fault can change the shape of responses', async t => {
    faults.set('list', { tokenText: 'absent' })
    t.notOk('token' in (await tokens('GET')).json.tokens[0])
    faults.set('list', { tokenText: 'empty' })
    t.equal((await tokens('GET')).json.tokens[0].token, '')
    faults.set('mint', { prettyPrint: true, clockSkewMs: -7_200_000 })
    const skewed = await tokens('POST')
    t.match(skewed.text, /^\{\n {4}"token"/)
    t.ok(claimsOf(skewed.json.token).exp < Date.now() / 1000 + 80_000)
    faults.clear()
  })

  await t.test('a fault can add latency, and concurrent logins are counted', async t => {
    faults.set('login', { latencyMs: 200 })
    const started = Date.now()
    await Promise.all([login(key), login(key), login(key)])
    t.ok(Date.now() - started >= 200)
    t.equal(ledger.maxLoginsInFlight(), 3)
  })
})

t.test('listeners are awaited before and after each request is handled', async t => {
  const { environment, tokens, accessToken } = await startCaller(t)
  const authorization = `Bearer ${await accessToken()}`
  const seen: string[] = []
  const watch = (name: 'beforeRequest' | 'mint' | 'afterRequest') =>
    environment.on(name, ({ sequence, status }) => {
      seen.push(`${name} ${sequence} ${status} ${environment.ledger.mints().length}`)
    })
  const stops = [watch('beforeRequest'), watch('mint'), watch('afterRequest')]
  await tokens('POST', '', { authorization })
  t.same(seen, ['beforeRequest 2 undefined 0', 'mint 2 200 1', 'afterRequest 2 200 1'])
  for (const stop of stops) stop()
  const before = environment.on('beforeRequest', () => 'drop')
  await t.rejects(tokens('POST', '', { authorization }))
  before()
  environment.on('mint', () => 'drop')
  await t.rejects(tokens('POST', '', { authorization }))
  t.equal(environment.ledger.mints().length, 2)
  t.equal(seen.length, 3)
})

t.test('the gateway connects to no other host, and nothing remains after stop', async t => {
  const { environment, mint, call } = await startCaller(t)
  const args = ['-sS', '-o', '/dev/null', '-w', '%{http_connect}', '--proxy', environment.gateway]
  for (const url of ['https://registry.example.org/', 'https://api.dedicated.example.com:8443/']) {
    const { stdout } = await promisify(execFile)('curl', [...args, url]).catch(error => error)
    t.equal(stdout, '502', url)
  }
  const wrong = await call('api', '/v2/info', { headers: { host: environment.hosts.registry } })
  t.equal(wrong.status, 421)
  const token = await mint()
  const secrets = [environment.apiKey, environment.user.password, token, token.split('.')[2]]
  for (const secret of secrets) t.ok(environment.issued().includes(secret ?? ''))
  t.ok(environment.issued().includes(Buffer.from(`token:${token}`).toString('base64')))
  t.ok(environment.issued().every(secret => secret.length >= 16))
  await environment.stop()
  t.notOk(existsSync(environment.caFile))
})

t.test('a real client can push and pull with the right token, and not without it', async t => {
  const { environment, call, tokens, mint } = await startCaller(t)
  const { hosts, gateway, caFile } = environment
  const registry = await startRegistry(environment.registryAuth)
  t.teardown(() => registry.stop())
  environment.setRegistryUpstream(registry.url)
  const route = { gateway, caFile }
  const image = `${hosts.registry}/acme/hello:1`
  const [pull, push] = [await mint(), await mint('?permanent=true&write=true')]
  const secret = (password: string) =>
    JSON.stringify({ auths: { [hosts.registry]: { username: 'token', password } } })

  await t.rejects(pushTestImage(image, { username: 'token', password: pull }, route))
  const digest = await pushTestImage(image, { username: 'token', password: push }, route)
  t.match(digest, /^sha256:/)
  t.match(await pullImage(image, secret(pull), route), { ok: true, digest })
  const elsewhere = `${hosts.registry}/acme_shop/hello:1`
  await t.rejects(pushTestImage(elsewhere, { username: 'token', password: push }, route))
  for (const without of [undefined, secret('x.y.z'), secret(environment.apiKey)]) {
    const refused = await pullImage(image, without, route)
    t.match([refused.ok, refused.output], [false, /UNAUTHORIZED/])
  }
  await tokens('DELETE', `/${claimsOf(pull).jti}`)
  t.equal((await pullImage(image, secret(pull), route)).ok, false, 'revoked')
  await registry.stop()
  t.equal((await call('registry', '/v2/')).status, 502)
})

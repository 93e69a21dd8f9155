import t from 'tap'
import type { Answer } from '../../src/bluemix/http/answer.ts'
import { realmOf } from '../../src/bluemix/registry-login.ts'
import {
  createListReader,
  lifetimeMs,
  listedToken,
  mintedToken,
  tokenText,
} from '../../src/bluemix/tokens.ts'
import { TokenError } from '../../src/issuer/issuer.ts'

const jwt = (claims: unknown, signature = '.c2ln') =>
  `eyJhbGciOiJIUzI1NiJ9.${Buffer.from(JSON.stringify(claims)).toString('base64url')}${signature}`

t.test('a minted token is opaque, and its readable claims are kept', async t => {
  // The token of IBM's procedure: two parts, cut in the middle of the payload.
  const ofTheProcedure =
    'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJqdGkiOiI2MzdiM2Q4Yy1hMDg3LTVhZjktYTYzNi0xNmU3ZWZjNzA5' +
    'NjciLCJpc3MiOiJyZWdpc3RyeS5jZnNkZWRpY2F0ZWQxLnVzLXNvdXRoLmJsdWVtaXgubmV0'
  const id = '637b3d8c-a087-5af9-a636-16e7efc70967'
  const expiring = jwt({ exp: 1540423054, jti: 'ae57b394', iss: 'registry.ng.bluemix.net' })
  const table: [string, string, string | undefined, Date | undefined][] = [
    [ofTheProcedure, ofTheProcedure, id, undefined],
    [expiring, expiring, 'ae57b394', new Date('2018-10-24T23:17:34Z')],
    [jwt({ jti: 'a', iss: 'r' }), jwt({ jti: 'a', iss: 'r' }), 'a', undefined],
    [jwt({ jti: 'a' }, ''), jwt({ jti: 'a' }, ''), 'a', undefined],
    [jwt({ jti: 7, exp: 'never' }), jwt({ jti: 7, exp: 'never' }), undefined, undefined],
    [jwt({ exp: 1e300 }), jwt({ exp: 1e300 }), undefined, undefined],
    ['opaque', 'opaque', undefined, undefined],
    [' padded\n', 'padded', undefined, undefined],
    ['a.b.c.d', 'a.b.c.d', undefined, undefined],
    [jwt(null), jwt(null), undefined, undefined],
  ]
  for (const [token, text, id, expiresAt] of table) {
    t.strictSame(mintedToken({ token }), { text, id, expiresAt }, token)
  }
})

t.test('a text that cannot be sent in a header is not accepted as a token', async t => {
  for (const odd of [
    '',
    ' ',
    'a b',
    'a\r\nX-Evil: 1',
    'tökén',
    'a\u0000',
    7,
    null,
    undefined,
    {},
  ]) {
    t.equal(tokenText(odd), undefined, JSON.stringify(odd))
    t.equal(mintedToken({ token: odd }), undefined)
  }
  for (const odd of [undefined, null, [], 'token']) t.equal(mintedToken(odd), undefined)
})

t.test('a row of the list is read whatever it lacks', async t => {
  const full = {
    ...{ _id: 'id-1', owner: 'guid', token: jwt({ jti: 'id-1' }), secondary_owner: 'd' },
    ...{ readonly: true, revoked: false, expiry: 1540423054, encrypted_token: 'x' },
  }
  t.strictSame(listedToken(full), {
    ...{ id: 'id-1', description: 'd', text: full.token, revoked: false, readOnly: true },
    expiresAt: new Date('2018-10-24T23:17:34Z'),
  })
  const bare = { description: '', text: undefined, revoked: false, readOnly: true }
  t.strictSame(listedToken({ _id: 'a' }), { ...bare, id: 'a', expiresAt: undefined })
  t.match(listedToken({ token: jwt({ jti: 'from-text', exp: 1 }) }), {
    ...{ id: 'from-text', expiresAt: new Date(1000) },
  })
  t.match(listedToken({ _id: 'a', expiry: 0, token: '', readonly: false }), {
    ...{ expiresAt: undefined, text: undefined, readOnly: false },
  })
  t.match(listedToken({ _id: 'a', revoked: true }), { revoked: true })
})

/** The ids of the rows of a body that arrives in pieces of this size; undefined: not complete. */
function readList(body: string, size = 7): string[] | undefined {
  const ids: string[] = []
  const reader = createListReader(({ id }) => ids.push(id))
  const bytes = Buffer.from(body)
  for (let at = 0; at < bytes.length; at += size) {
    if (!reader.write(bytes.subarray(at, at + size))) break
  }
  return reader.isComplete() ? ids : undefined
}

t.test('a list counts where all of it was read', async t => {
  const rows = '[{"_id":"a","x":{"tokens":[1]}},{"_id":"b\\u00e9"}]'
  const complete: [string, string[]][] = [
    [`{"tokens":${rows}}`, ['a', 'bé']],
    [`{"next":null,"next_url":"","tokens":${rows},"more":{"tokens":[{"_id":"c"}]}}`, ['a', 'bé']],
    [`${JSON.stringify({ tokens: [{ _id: 'a' }] }, null, 4)}\n`, ['a']],
    ['{"tokens":[]}', []],
    ['{"tokens":null}', []],
    ['{"tokens":[null,7,{},{"token":"opaque"}]}', []],
  ]
  for (const [body, ids] of complete) {
    for (const size of [1, 7, 1e6]) t.strictSame(readList(body, size), ids, `${body} by ${size}`)
  }
  const incomplete = [
    ...['', '{', '[]', 'null', 'x', '<html></html>', '{}', '{"tokens":"x"}', '{"tokens":{"a":{}}}'],
    ...['[{"tokens":[]}]', '{"tokens":[{"_id":"a"}],"next_url":"/api/v1/tokens?page=2"}'],
    ...['{"tokens":[{"_id":"a"}],"next":{"href":"x"}}', `{"tokens":${rows}`, `{"tokens":${rows}}x`],
    ...['{"tokens":[{"_id":"a"},', '{"tokens":[],"tokens":7}', '{"tokens":7,"tokens":[]}'],
  ]
  for (const body of incomplete) t.equal(readList(body), undefined, body)
})

t.test('a row that does not end is not read to its end', async t => {
  const reader = createListReader(() => {})
  reader.write(Buffer.from('{"tokens":[{"_id":"'))
  const chunk = Buffer.alloc(65_536, 'x')
  let chunks = 0
  while (reader.write(chunk)) chunks += 1
  t.ok(chunks <= 17, `${chunks} chunks`)
})

t.test('an access token expires at the earlier time of response and token', async t => {
  const hour = jwt({ iat: 1000, exp: 4600 })
  const table: [string, unknown, number][] = [
    ['opaque', 600, 600_000],
    ['opaque', '600', 600_000],
    ['opaque', undefined, 600_000],
    ['opaque', -1, 600_000],
    [hour, 1_209_600, 3_600_000],
    [hour, 60, 60_000],
    [hour, undefined, 3_600_000],
    [jwt({ exp: 4600 }), 60, 60_000],
  ]
  for (const [token, expiresIn, expected] of table) {
    t.equal(lifetimeMs(token, expiresIn), expected, `${token} ${expiresIn}`)
  }
})

t.test('a credential is sent only to the token server of the registry itself', async t => {
  const realm = (challenge: string | undefined) =>
    realmOf(
      {
        ...{ origin: 'https://registry.d.example.com', status: 401, json: undefined, sent: [] },
        headers: { 'www-authenticate': challenge },
      } satisfies Answer,
      ['registry.d.example.com', 'registry.d.example.com:5000'],
    )
  const url = 'https://registry.d.example.com/oauth/token'
  t.strictSame(realm(`Bearer realm="${url}",service="registry"`), { url, service: 'registry' })
  t.match(realm(`bearer service="s",realm="${url}"`), { url, service: 's' })
  t.match(realm(`Bearer realm="${url}",error="invalid_token"`), { url, service: undefined })
  t.match(realm('Bearer realm="https://registry.d.example.com:443/t"'), { service: undefined })
  t.match(realm('Bearer realm="https://registry.d.example.com:5000/t"'), { service: undefined })
  const refused: [string | undefined, string][] = [
    [undefined, 'no_challenge'],
    ['Basic realm="Registry"', 'no_challenge'],
    ['Bearer realm="/oauth/token"', 'no_challenge'],
    ['Bearer realm="http://registry.d.example.com/oauth/token"', 'unexpected_realm'],
    ['Bearer realm="https://evil.example.com/oauth/token"', 'unexpected_realm'],
    ['Bearer realm="https://registry.d.example.com.evil.io/t"', 'unexpected_realm'],
    ['Bearer realm="https://registry.d.example.com:444/t"', 'unexpected_realm'],
    ['Bearer realm="https://registry.d.example.com@evil.io/t"', 'unexpected_realm'],
  ]
  for (const [challenge, code] of refused) {
    const error = realm(challenge)
    t.ok(error instanceof TokenError, String(challenge))
    t.match(error, { code })
  }
})

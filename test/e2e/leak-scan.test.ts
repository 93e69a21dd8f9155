import t from 'tap'
import { findLeaks } from './leak-scan.ts'

const secret = 'kx/9+Zq "lock" 7f~Tb'

t.test('a secret is found in every encoding in which it could leak', async t => {
  const planted: [string, string][] = [
    ['as it is', `login with ${secret} failed`],
    ['as JSON', JSON.stringify({ key: secret })],
    ['URL-encoded', `https://host/?key=${encodeURIComponent(secret)}&more`],
    ...['', 'a', 'ab', 'abc'].flatMap((before): [string, string][] => [
      ['in base64', Buffer.from(`${before}${secret}after`).toString('base64')],
      ['in base64', Buffer.from(`${before}${secret}`).toString('base64url')],
    ]),
  ]
  for (const [how, text] of planted) {
    t.match(findLeaks(new Map([['the log', text]]), [secret])[0], `${how}, in the log`, text)
  }
})

t.test('a found secret is reported without quoting it', async t => {
  const found = findLeaks(new Map([['the log', secret]]), ['another', secret])
  t.same(found, ['secret 1, as it is, in the log'])
})

t.test('a text without a secret, or with half of one, is not a leak', async t => {
  t.same(findLeaks(new Map([['the log', secret.slice(0, 10)]]), [secret, '']), [])
})

t.test('a text that looks like a credential is found, whatever issued it', async t => {
  const looks: [what: string, text: string][] = [
    ['a JWT', `token eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl`],
    ['a private key', '-----BEGIN EC PRIVATE KEY-----'],
    ['an Authorization header', 'authorization: Bearer 0123456789abcdef'],
  ]
  for (const [what, text] of looks) {
    t.same(findLeaks(new Map([['the log', text]]), []), [`${what}, in the log`])
  }
})

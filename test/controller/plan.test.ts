import t from 'tap'
import { plan } from '../../src/controller/plan.ts'
import type { OptedInNamespace } from '../../src/pull-secret/cache.ts'
import type { PullSecret } from '../../src/pull-secret/pull-secret.ts'

const hour = 3_600_000
const now = new Date('2026-03-01T12:00:00Z')
const ago = (ms: number) => new Date(now.getTime() - ms)
const ahead = (ms: number) => new Date(now.getTime() + ms)

const shop: OptedInNamespace = {
  name: 'shop',
  uid: 'u1',
  terminating: false,
  organization: undefined,
}
const ending = { ...shop, terminating: true }

const good: PullSecret = {
  namespace: 'shop',
  uid: 's1',
  resourceVersion: '7',
  ours: true,
  wellFormed: true,
  tokenId: 'token-1',
  organization: 'acme',
  mintedAt: ago(hour),
  expiresAt: undefined,
  previousTokenId: undefined,
  revokeAt: undefined,
  immutable: false,
  terminating: false,
  digest: 'd',
}
const notManaged = { ...good, ours: false }

const rules = {
  now,
  organization: 'acme',
  rotateAfterMs: undefined,
  rotateGraceMs: 2 * hour,
}

t.test('the plan names the missing action for each row of its table', async t => {
  const rows: [
    string,
    OptedInNamespace | undefined,
    PullSecret | undefined,
    string,
    Partial<Parameters<typeof plan>[2]>?,
  ][] = [
    ['an ending namespace is left alone', ending, undefined, 'nothing terminating'],
    ['also with a damaged Secret', ending, { ...good, wellFormed: false }, 'nothing terminating'],
    [
      'one that a finalizer holds is left alone',
      shop,
      { ...good, wellFormed: false, terminating: true },
      'nothing terminating',
    ],
    [
      'also where its namespace left',
      undefined,
      { ...good, wellFormed: false, terminating: true },
      'nothing terminating',
    ],
    [
      'an immutable Secret cannot be put right',
      shop,
      { ...good, wellFormed: false, immutable: true },
      'nothing immutable',
    ],
    [
      'nor can its token be renewed',
      shop,
      { ...good, expiresAt: ago(hour), immutable: true },
      'nothing immutable',
    ],
    ['while it holds a token it is ready', shop, { ...good, immutable: true }, 'nothing ready'],
    [
      'its annotations can change',
      shop,
      { ...good, immutable: true, revokeAt: ahead(1) },
      'cancel_revocation',
    ],
    ['it can be deleted', undefined, { ...good, immutable: true, wellFormed: false }, 'revoke'],
    ['a missing Secret is made', shop, undefined, 'ensure absent'],
    [
      'a Secret that is not managed by pullpass is left alone',
      shop,
      notManaged,
      'nothing not_managed',
    ],
    [
      'also where it holds nothing usable',
      shop,
      { ...notManaged, wellFormed: false },
      'nothing not_managed',
    ],
    ['a damaged Secret is put right', shop, { ...good, wellFormed: false }, 'ensure malformed'],
    [
      'another organization needs another token',
      shop,
      { ...good, organization: 'old' },
      'ensure other_organization',
    ],
    [
      'a label that came back cancels the revocation',
      shop,
      { ...good, revokeAt: ahead(1) },
      'cancel_revocation',
    ],
    [
      'a Secret whose revocation is due gets another token',
      shop,
      { ...good, revokeAt: now },
      'ensure revocation_due',
    ],
    ['a permanent token is left in peace', shop, { ...good, mintedAt: ago(9e9) }, 'nothing ready'],
    [
      'a token in its youth is left in peace',
      shop,
      { ...good, expiresAt: ahead(3 * hour) },
      'nothing ready',
    ],
    [
      'one past 2/3 of its life is renewed',
      shop,
      { ...good, mintedAt: ago(2 * hour), expiresAt: ahead(hour) },
      'renew expiring',
    ],
    [
      'one that expired is renewed',
      shop,
      { ...good, mintedAt: ago(2 * hour), expiresAt: ago(hour) },
      'renew expiring',
    ],
    [
      'one of unknown age that expires is renewed',
      shop,
      { ...good, mintedAt: undefined, expiresAt: ahead(99 * hour) },
      'renew expiring',
    ],
    [
      'one that reached the rotation age is renewed',
      shop,
      good,
      'renew old',
      { rotateAfterMs: hour },
    ],
    [
      'one short of the rotation age is not',
      shop,
      good,
      'nothing ready',
      { rotateAfterMs: hour + 1 },
    ],
    [
      'the token before is kept for its grace',
      shop,
      { ...good, previousTokenId: 'token-0' },
      'nothing ready',
    ],
    [
      'and revoked after it',
      shop,
      { ...good, previousTokenId: 'token-0', mintedAt: ago(2 * hour) },
      'revoke_previous',
    ],
    ['a namespace that never was ours needs nothing', undefined, undefined, 'nothing not_opted_in'],
    ['nor does a notManaged Secret', undefined, notManaged, 'nothing not_opted_in'],
    [
      'the revocation of a Secret whose namespace left is scheduled',
      undefined,
      good,
      'schedule_revocation',
    ],
    [
      'a Secret whose revocation is scheduled stays for its grace',
      undefined,
      { ...good, revokeAt: ahead(1) },
      'nothing revocation_scheduled',
    ],
    ['and goes when that is over', undefined, { ...good, revokeAt: now }, 'revoke'],
    ['a damaged one goes at once', undefined, { ...good, wellFormed: false }, 'revoke'],
  ]
  for (const [sentence, namespace, secret, expected, other] of rows) {
    const step = plan(namespace, secret, { ...rules, ...other })
    t.equal('because' in step ? `${step.do} ${step.because}` : step.do, expected, sentence)
  }
})

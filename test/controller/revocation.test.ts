import t from 'tap'
import { revocationReason, type Situation } from '../../src/controller/revocation.ts'
import type { InventoryToken } from '../../src/issuer/inventory.ts'
import type { PullSecret } from '../../src/pull-secret/pull-secret.ts'

const now = new Date('2026-03-01T12:00:00Z')
const ago = (ms: number) => new Date(now.getTime() - ms)
const shop = { name: 'shop', uid: 'u1', terminating: false, organization: undefined }

const token: InventoryToken = {
  id: 'other',
  hash: 'h2',
  description: 'pullpass/cluster-1/shop/1772362800',
  namespace: 'shop',
  mintedAt: ago(60_000),
  expiresAt: undefined,
  revoked: false,
  readOnly: true,
  organization: 'acme',
  seenIn: 3,
  seenInARow: 2,
  mintedByUs: false,
  revokedByUs: false,
}
const own: InventoryToken = { ...token, id: 'own', hash: 'h1' }
const secret: PullSecret = {
  namespace: 'shop',
  uid: 's1',
  resourceVersion: '7',
  ours: true,
  token: { hash: 'h1', id: 'own' },
  organization: 'acme',
  mintedAt: ago(60_000),
  expiresAt: undefined,
  previousTokenId: undefined,
  revokeAt: undefined,
  immutable: false,
  terminating: false,
  digest: 'd',
}
const ready: Situation = {
  namespace: shop,
  secret,
  own,
  step: { do: 'nothing', because: 'ready' },
  now,
  rotateGraceMs: 60_000,
}
const leaving: Situation = {
  ...ready,
  namespace: 'not_opted_in',
  step: { do: 'nothing', because: 'revocation_scheduled' },
}
const over = { ...secret, revokeAt: now }
const fourth = { seenIn: 3 }

type Row = [
  sentence: string,
  situation: Situation,
  expected: string | undefined,
  token?: Partial<InventoryToken>,
  lists?: { lists?: number; unsupported?: boolean },
]

const rows: Row[] = [
  ['a token beside a live one is revoked', ready, 'spare'],
  ['not when one list has shown it', ready, undefined, { seenInARow: 1 }],
  ['not when the last list does not show it', ready, undefined, fourth, { lists: 4 }],
  ['not when it was minted since', ready, undefined, { seenIn: undefined, seenInARow: 0 }],
  ['not when it is revoked already', ready, undefined, { revoked: true }],
  [
    'not beside a token that one list has shown',
    { ...ready, own: { ...own, seenInARow: 1 } },
    undefined,
  ],
  ['not beside a token that no list shows', { ...ready, own: undefined }, undefined],
  ['not beside a dead token', { ...ready, own: { ...own, revoked: true } }, undefined],
  ['not without a Secret', { ...ready, secret: undefined, own: undefined }, undefined],
  [
    'not while the namespace needs a step',
    { ...ready, step: { do: 'ensure', because: 'dead' } },
    undefined,
  ],
  [
    'the one before is revoked after its grace',
    { ...ready, secret: { ...secret, previousTokenId: 'other' } },
    'rotated',
  ],
  [
    'not before',
    { ...ready, secret: { ...secret, previousTokenId: 'other' }, rotateGraceMs: 60_001 },
    undefined,
  ],
  ['a namespace that left keeps its token for a grace', leaving, undefined],
  ['and loses it then', { ...leaving, secret: over }, 'left'],
  ['at once where its Secret is gone', { ...leaving, secret: undefined, own: undefined }, 'left'],
  ['or holds none of its tokens', { ...leaving, own: { ...own, namespace: 'market' } }, 'left'],
  ['or is not ours', { ...leaving, secret: { ...secret, ours: false } }, 'left'],
  ['an ending one keeps it', { ...ready, namespace: { ...shop, terminating: true } }, undefined],
  [
    'until its Secret is gone',
    { ...ready, namespace: { ...shop, terminating: true }, secret: undefined, own: undefined },
    'left',
  ],
  ['one that is missing is looked at again', { ...ready, namespace: 'missing' }, undefined],
  ['the token of one that is gone is revoked', { ...ready, namespace: 'gone' }, 'gone'],
  ['not when one list has shown it', { ...ready, namespace: 'gone' }, undefined, { seenInARow: 1 }],
  [
    'where nothing can be listed, a token that we minted is enough',
    { ...leaving, secret: undefined, own: undefined },
    'left',
    { seenIn: undefined, seenInARow: 0, mintedByUs: true },
    { lists: 0, unsupported: true },
  ],
  [
    'also where lists were supported before',
    { ...leaving, secret: undefined, own: undefined },
    'left',
    { mintedByUs: true },
    { lists: 3, unsupported: true },
  ],
  [
    'one that only a list before has shown is not',
    { ...leaving, secret: undefined, own: undefined },
    undefined,
    {},
    { lists: 3, unsupported: true },
  ],
  [
    'nor is one beside a token that only a list before has shown',
    ready,
    undefined,
    { mintedByUs: true },
    { lists: 3, unsupported: true },
  ],
]

t.test('why a token may be revoked, row by row', async t => {
  for (const [sentence, situation, expected, change, lists] of rows) {
    const listed = { lists: 3, unsupported: false, ...lists }
    const reason = revocationReason({ ...token, ...change }, situation, () => listed)
    t.equal(reason, expected, sentence)
  }
})

t.test('the token in the Secret is never revoked for being there', async t => {
  t.equal(
    revocationReason(own, ready, () => ({ lists: 3, unsupported: false })),
    undefined,
  )
})

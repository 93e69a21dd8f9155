import t from 'tap'
import { plan, type TokenKnowledge, verdict } from '../../src/controller/plan.ts'
import type { InventoryToken } from '../../src/issuer/inventory.ts'
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

const ours: PullSecret = {
  namespace: 'shop',
  uid: 's1',
  resourceVersion: '7',
  ours: true,
  token: { hash: 'h1', id: 'token-1' },
  organization: 'acme',
  mintedAt: ago(hour),
  expiresAt: undefined,
  previousTokenId: undefined,
  revokeAt: undefined,
  immutable: false,
  terminating: false,
  digest: 'd',
}
const unlabelled = { ...ours, ours: false }
const damaged = { ...ours, token: undefined }

const row: InventoryToken = {
  id: 'token-1',
  hash: 'h1',
  description: 'pullpass/cluster-1/shop/1772362800',
  namespace: 'shop',
  mintedAt: ago(hour),
  expiresAt: undefined,
  revoked: false,
  readOnly: true,
  organization: 'acme',
  seenIn: 3,
  seenInARow: 3,
  mintedByUs: false,
  revokedByUs: false,
}
const live: TokenKnowledge = { row, refused: false }
const unknown: TokenKnowledge = { row: undefined, refused: false }
const dead: TokenKnowledge = { row: { ...row, revoked: true }, refused: false }
const aged = (change: Partial<InventoryToken>) => ({ row: { ...row, ...change }, refused: false })

const rules = {
  now,
  organization: 'acme',
  listed: true,
  mayReplace: true,
  mayRevoke: true,
  previousIsOver: false,
  rotateAfterMs: undefined,
}

t.test('whether a namespace can go on with its token, row by row', async t => {
  const rows: [string, Partial<InventoryToken> | undefined, boolean, string][] = [
    ['revoked by hand', { revoked: true }, false, 'dead'],
    ['revoked, though the registry has accepted it before', { revoked: true }, false, 'dead'],
    ['expired', { expiresAt: now }, false, 'dead'],
    ['copied from another namespace', { namespace: 'market' }, false, 'dead'],
    ['from the backup of another cluster', { namespace: undefined }, false, 'dead'],
    ['live in the list, but the registry refuses it', {}, true, 'dead'],
    ['in no list, and the registry refuses it', undefined, true, 'dead'],
    ['live', {}, false, 'live'],
    ['live until it expires', { expiresAt: ahead(1) }, false, 'live'],
    ['in no list, or there is no list', undefined, false, 'unknown'],
    ['with write access', { readOnly: false }, false, 'unknown'],
  ]
  for (const [sentence, change, refused, expected] of rows) {
    const known = { row: change && { ...row, ...change }, refused }
    t.equal(verdict('shop', known, now), expected, sentence)
  }
})

type Row = [
  sentence: string,
  namespace: OptedInNamespace | undefined,
  secret: PullSecret | undefined,
  token: TokenKnowledge,
  step: string,
  rules?: Partial<Parameters<typeof plan>[3]>,
]

const optedIn: Row[] = [
  ['a missing Secret is created', shop, undefined, unknown, 'ensure absent'],
  ['one that lost our label gets it back', shop, unlabelled, live, 'restore_label'],
  ['one of somebody else is left alone', shop, unlabelled, unknown, 'nothing not_managed'],
  ['also where its token is dead', shop, unlabelled, dead, 'nothing not_managed'],
  [
    'also where it holds no token',
    shop,
    { ...damaged, ours: false },
    unknown,
    'nothing not_managed',
  ],
  ['a damaged Secret is repaired', shop, damaged, unknown, 'ensure malformed'],
  ['a dead token is replaced', shop, ours, dead, 'ensure dead'],
  ['a copied token too', shop, ours, aged({ namespace: 'market' }), 'ensure dead'],
  ['a refused one too', shop, ours, { row, refused: true }, 'ensure dead'],
  ['a token that no list shows is kept', shop, ours, unknown, 'nothing ready'],
  ['a live one is kept', shop, ours, live, 'nothing ready'],
  [
    'an annotation does not count against the list',
    shop,
    { ...ours, organization: 'made-up', mintedAt: ago(9e9), expiresAt: ago(1) },
    live,
    'nothing ready',
  ],
  [
    'a token of another organization is replaced',
    shop,
    ours,
    aged({ organization: 'old' }),
    'ensure other_organization',
  ],
  [
    'also where only the annotation says so, and no list shows it',
    shop,
    { ...ours, organization: 'old' },
    unknown,
    'ensure other_organization',
  ],
  [
    'a label that came back cancels the revocation',
    shop,
    { ...ours, revokeAt: ahead(1) },
    live,
    'cancel_revocation',
  ],
  ['also where it is due', shop, { ...ours, revokeAt: now }, unknown, 'cancel_revocation'],
  ['a permanent token is left in peace', shop, ours, aged({ mintedAt: ago(9e9) }), 'nothing ready'],
  [
    'a token in its youth is left in peace',
    shop,
    ours,
    aged({ expiresAt: ahead(3 * hour) }),
    'nothing ready',
  ],
  [
    'one past 2/3 of its life is renewed',
    shop,
    ours,
    aged({ mintedAt: ago(2 * hour), expiresAt: ahead(hour) }),
    'renew expiring',
  ],
  [
    'one of unknown age that expires is renewed',
    shop,
    { ...ours, mintedAt: undefined },
    aged({ mintedAt: undefined, expiresAt: ahead(99 * hour) }),
    'renew expiring',
  ],
  [
    'one at the rotation age is renewed',
    shop,
    { ...ours, mintedAt: now },
    live,
    'renew old',
    { rotateAfterMs: hour },
  ],
  ['one short of it is not', shop, ours, live, 'nothing ready', { rotateAfterMs: hour + 1 }],
  [
    'where no list shows the token, the annotation is its age',
    shop,
    ours,
    unknown,
    'renew old',
    { rotateAfterMs: hour },
  ],
  [
    'the token before is named while it lives',
    shop,
    { ...ours, previousTokenId: 'token-0' },
    live,
    'nothing ready',
  ],
  [
    'and forgotten when it is over',
    shop,
    { ...ours, previousTokenId: 'token-0' },
    live,
    'forget_previous',
    { previousIsOver: true },
  ],
]

const others: Row[] = [
  ['an ending namespace is left alone', ending, undefined, unknown, 'nothing terminating'],
  ['also with a damaged Secret', ending, damaged, unknown, 'nothing terminating'],
  [
    'a Secret that a finalizer holds is left alone',
    shop,
    { ...ours, terminating: true },
    dead,
    'nothing terminating',
  ],
  [
    'also where its namespace left',
    undefined,
    { ...ours, terminating: true, revokeAt: now },
    live,
    'nothing terminating',
  ],
  [
    'a namespace that never was ours needs nothing',
    undefined,
    undefined,
    unknown,
    'nothing not_opted_in',
  ],
  ["nor does somebody else's Secret", undefined, unlabelled, live, 'nothing not_opted_in'],
  [
    'a copy is left to its owner',
    undefined,
    ours,
    aged({ namespace: 'market' }),
    'nothing not_its_own',
  ],
  ['so is one that no list knows', undefined, ours, unknown, 'nothing not_its_own'],
  ['and a damaged one', undefined, damaged, unknown, 'nothing not_its_own'],
  ['a Secret whose namespace left gets a grace', undefined, ours, live, 'schedule_revocation'],
  ['also where its token is dead', undefined, ours, dead, 'schedule_revocation'],
  [
    'it stays until that is over',
    undefined,
    { ...ours, revokeAt: ahead(1) },
    live,
    'nothing revocation_scheduled',
  ],
  ['and is deleted then', undefined, { ...ours, revokeAt: now }, live, 'delete'],
]

const notYet: Row[] = [
  ['no first token before a list', shop, undefined, unknown, 'nothing no_list', { listed: false }],
  [
    'no rotation either',
    shop,
    ours,
    unknown,
    'nothing no_list',
    { listed: false, rotateAfterMs: hour },
  ],
  [
    'nobody knows yet whose Secret it is',
    shop,
    unlabelled,
    unknown,
    'nothing no_list',
    { listed: false },
  ],
  [
    'an immutable Secret cannot be repaired',
    shop,
    { ...damaged, immutable: true },
    unknown,
    'nothing immutable',
  ],
  [
    'nor can its token be renewed',
    shop,
    { ...ours, immutable: true },
    live,
    'nothing immutable',
    { rotateAfterMs: hour },
  ],
  [
    'while it holds a live token it is ready',
    shop,
    { ...ours, immutable: true },
    live,
    'nothing ready',
  ],
  [
    'its annotations can change',
    shop,
    { ...ours, immutable: true, revokeAt: ahead(1) },
    live,
    'cancel_revocation',
  ],
  [
    'many dead tokens: one goes first',
    shop,
    ours,
    dead,
    'nothing another_goes_first',
    { mayReplace: false },
  ],
  [
    'while another has our name nothing is deleted',
    undefined,
    { ...ours, revokeAt: now },
    live,
    'nothing revocation_suspended',
    { mayRevoke: false },
  ],
]

for (const [title, rows] of Object.entries({ optedIn, others, notYet })) {
  t.test(`the one step that is missing, row by row: ${title}`, async t => {
    for (const [sentence, namespace, secret, token, expected, other] of rows) {
      const step = plan(namespace, secret, token, { ...rules, ...other })
      t.equal('because' in step ? `${step.do} ${step.because}` : step.do, expected, sentence)
    }
  })
}

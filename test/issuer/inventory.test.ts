import t from 'tap'
import { chooseToken, namespaceOf, tokenDescription } from '../../src/issuer/inventory.ts'
import type { ListedToken } from '../../src/issuer/issuer.ts'

const now = new Date('2026-03-01T12:00:00Z')
const ahead = (minutes: number) => new Date(now.getTime() + minutes * 60_000)
const description = tokenDescription('cluster-1', 'shop')

function token(id: string, over: Partial<ListedToken> = {}): ListedToken {
  return {
    id,
    description,
    text: `text-of-${id}`,
    expiresAt: undefined,
    revoked: false,
    readOnly: true,
    ...over,
  }
}

function choose(tokens: ListedToken[], except: string[] = []) {
  const choice = chooseToken(tokens, description, { now, neededUntil: ahead(10) }, except)
  return { adopt: choice.adopt?.id, redundant: choice.redundant.map(({ id }) => id) }
}

t.test('of several tokens of a namespace, one is adopted, others are redundant', async t => {
  const rows: [string, ListedToken[], string | undefined, string[]][] = [
    ['none', [], undefined, []],
    ['the only one', [token('a')], 'a', []],
    ['the newest of several', [token('a'), token('b')], 'b', ['a']],
    ['the one that lives longest', [token('a'), token('b', { expiresAt: ahead(99) })], 'a', ['b']],
    ['not a revoked one', [token('a', { revoked: true })], undefined, []],
    ['not one that is over', [token('a', { expiresAt: now })], undefined, []],
    ['not one that ends soon', [token('a', { expiresAt: ahead(5) })], undefined, ['a']],
    ['not one of write rights', [token('a', { readOnly: false })], undefined, ['a']],
    ['not one whose text is not given', [token('a', { text: undefined })], undefined, ['a']],
    ['nor an empty one', [token('a', { text: '' })], undefined, ['a']],
    ['never a foreign one', [token('a', { description: 'my laptop' })], undefined, []],
    [
      'never one of a namespace with a longer name',
      [token('a', { description: `${description}-2` })],
      undefined,
      [],
    ],
  ]
  for (const [sentence, tokens, adopt, redundant] of rows) {
    t.strictSame(choose(tokens), { adopt, redundant }, sentence)
  }
  t.strictSame(
    choose([token('a'), token('b')], ['b']),
    { adopt: 'a', redundant: ['b'] },
    'an exception',
  )
})

t.test('a description is recognized only by the cluster that wrote it', async t => {
  t.equal(namespaceOf('cluster-1', description), 'shop')
  for (const other of [
    'pullpass/cluster-2/shop',
    'pullpass/cluster-1/',
    'pullpass/cluster-1/shop/x',
    'pullpass/cluster-1/Shop',
    'xpullpass/cluster-1/shop',
    '',
  ]) {
    t.equal(namespaceOf('cluster-1', other), undefined, other)
  }
})

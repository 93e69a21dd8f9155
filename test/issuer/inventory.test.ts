import { mock } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import t from 'tap'
import {
  createInventory,
  markDescription,
  readDescription,
  tokenDescription,
} from '../../src/issuer/inventory.ts'
import { type ListedToken, type MintedToken, TokenError } from '../../src/issuer/issuer.ts'
import { tokenHash } from '../../src/jwt.ts'

const start = new Date('2026-03-01T12:00:00Z')
const live = new AbortController().signal
const description = (namespace: string) => tokenDescription('one', namespace, start)

function row(id: string, over: Partial<ListedToken> = {}): ListedToken {
  const known = { description: description('shop'), text: `text-of-${id}`, expiresAt: undefined }
  return { id, ...known, revoked: false, readOnly: true, ...over }
}

const minted = (id: string | undefined): MintedToken => ({
  text: `text-of-${id}`,
  id,
  expiresAt: undefined,
})

/** An inventory of `acme` in a term, with an environment in memory. */
function setup(t: { teardown(end: () => void): void }) {
  let time = start.getTime()
  let monotonic = 1_000_000
  const clock = mock.method(performance, 'now', () => monotonic)
  t.teardown(() => clock.mock.restore())
  const environment = {
    rows: [] as ListedToken[],
    unsupported: false,
    /** Thrown after the rows were read. */
    failure: undefined as TokenError | undefined,
    lists: 0,
    /** Runs while a list is read. */
    during: async () => {},
  }
  const held = { hashes: new Set<string>(), ids: new Set<string>() }
  const inventory = createInventory(
    {
      issuer: {
        list: async (_organization, each) => {
          environment.lists += 1
          if (environment.unsupported) return 'unsupported'
          const rows = environment.rows.map(token => ({ ...token }))
          await environment.during()
          for (const token of rows) each(token)
          if (environment.failure !== undefined) throw environment.failure
          return 'complete'
        },
      },
      holds: () => held,
      now: () => new Date(time),
      logger: pino({ level: 'silent' }),
      metrics: new Registry(),
    },
    { cluster: 'one' },
  )
  const term = new AbortController()
  t.teardown(() => term.abort())
  inventory.begin(term.signal)
  const acme = inventory.organization('acme')
  /** Lists once more, after the pause between two lists. */
  const list = async () => {
    monotonic += 5000
    await inventory.refresh('acme', live)
  }
  const advance = (ms: number) => {
    time += ms
    monotonic += ms
  }
  const ids = (namespace = 'shop') => acme.ofNamespace(namespace).map(({ id }) => id)
  const find = (id: string) => acme.find({ hash: tokenHash(`text-of-${id}`), id })
  return { environment, held, inventory, acme, term, list, advance, ids, find }
}

t.test('a description names the cluster, the namespace and the time of the mint', async t => {
  t.equal(description('shop'), 'pullpass/one/shop/1772366400')
  t.equal(markDescription('one', 'nonce-1'), 'pullpass/one//nonce-1')
  const rows: [string, ReturnType<typeof readDescription>][] = [
    [description('shop'), { namespace: 'shop', mintedAt: start }],
    ['pullpass/one/shop', { namespace: 'shop', mintedAt: undefined }],
    ['pullpass/one//nonce-1', { mark: 'nonce-1' }],
    ['pullpass/two/shop/1772366400', undefined],
    ['pullpass/one/', undefined],
    ['pullpass/one//', undefined],
    ['pullpass/one/Shop/1772366400', undefined],
    ['pullpass/one/shop/', undefined],
    ['pullpass/one/shop/x', undefined],
    ['pullpass/one/shop/1772366400/x', undefined],
    ['pullpass/one/shop/-5', undefined],
    ['xpullpass/one/shop', undefined],
    ['my laptop', undefined],
    ['', undefined],
  ]
  for (const [text, expected] of rows) t.strictSame(readDescription('one', text), expected, text)
})

t.test('the inventory holds our rows, and rows that a Secret of ours holds', async t => {
  const { environment, held, acme, list, ids, find } = setup(t)
  const theirs = { description: 'pullpass/two/shop/1772366400' }
  environment.rows = [
    row('a'),
    row('b', { revoked: true }),
    row('copied', theirs),
    row('restored', { ...theirs, text: undefined }),
    row('laptop', { description: 'my laptop' }),
    row('other', { description: description('other') }),
  ]
  held.hashes.add(tokenHash('text-of-copied'))
  held.ids.add('restored')
  t.equal(acme.lists, 0)
  await list()
  t.match(acme, { lists: 1, failed: 0, listedAt: start, unsupported: false })
  t.strictSame(ids(), ['a', 'b'])
  t.strictSame([...acme.namespaces()], ['shop', 'other'])
  t.match(find('copied'), { id: 'copied', namespace: undefined, organization: 'acme' })
  t.match(find('restored'), { id: 'restored', namespace: undefined })
  t.equal(find('laptop'), undefined)
  t.match(find('a'), { namespace: 'shop', mintedAt: start, seenIn: 1, seenInARow: 1 })
  t.notMatch(JSON.stringify(find('a')), 'text-of-', 'no text is kept')
})

t.test('a namespace with revoked, expired or writing tokens only has no live row', async t => {
  const { environment, acme, list, ids, advance } = setup(t)
  const soon = new Date(start.getTime() + 1000)
  environment.rows = [row('a', { revoked: true }), row('b', { readOnly: false })]
  environment.rows.push(row('c', { expiresAt: soon }))
  await list()
  t.strictSame([...acme.namespaces()], ['shop'])
  advance(1000)
  t.strictSame([...acme.namespaces()], [])
  t.strictSame(ids(), ['a', 'b', 'c'])
})

t.test('an id in the text of a token names a row only where the list gives no texts', async t => {
  const { environment, acme, list } = setup(t)
  environment.rows = [row('a'), row('b', { text: undefined })]
  await list()
  const forged = tokenHash('forged')
  t.equal(acme.find({ hash: forged, id: 'a' }), undefined)
  t.match(acme.find({ hash: forged, id: 'b' }), { id: 'b' })
  t.equal(acme.find({ hash: forged, id: undefined }), undefined)
})

t.test('a list that fails changes nothing but the count of failures', async t => {
  const { environment, acme, list, ids } = setup(t)
  environment.rows = [row('a')]
  await list()
  environment.rows = [row('b')]
  const details = { kind: 'transient', scope: 'organization', code: 'network' } as const
  environment.failure = new TokenError('cut short', details)
  for (const failed of [1, 2, 3]) {
    await t.rejects(list(), { code: 'network' })
    t.match(acme, { lists: 1, failed })
    t.strictSame(ids(), ['a'])
  }
  environment.failure = undefined
  await list()
  t.match(acme, { lists: 2, failed: 0 })
  t.strictSame(ids(), ['b'])
})

t.test('the lists in a row that showed a token are counted', async t => {
  const { environment, list, find } = setup(t)
  const shown = async (...rows: ListedToken[]) => {
    environment.rows = rows
    await list()
    return find('a')?.seenInARow
  }
  t.equal(await shown(row('a')), 1)
  t.equal(await shown(row('a')), 2)
  t.equal(await shown(), undefined)
  t.equal(await shown(row('a')), 1)
})

t.test('a mint is known at once, and for a minute also if the list does not show it', async t => {
  const { environment, inventory, acme, list, ids, find, advance } = setup(t)
  await list()
  inventory.minted('acme', description('shop'), minted('a'))
  t.match(find('a'), { namespace: 'shop', seenIn: undefined, seenInARow: 0, readOnly: true })
  t.strictSame([...acme.namespaces()], ['shop'])
  advance(59_000)
  await list()
  t.match(find('a'), { seenIn: undefined })
  environment.rows = [row('a')]
  await list()
  t.match(find('a'), { seenIn: 3, seenInARow: 1 })
  inventory.minted('acme', description('shop'), minted('b'))
  t.strictSame(ids(), ['a', 'b'])
  advance(60_000)
  await list()
  t.strictSame(ids(), ['a'])
  inventory.minted('acme', 'pullpass/two/shop/1', minted('c'))
  t.equal(find('c'), undefined, 'a mint for another cluster is none of ours')
})

t.test('a mint without an id gets the one that a list shows', async t => {
  const { environment, inventory, list, ids, find } = setup(t)
  inventory.minted('acme', description('shop'), { ...minted(undefined), text: 'text-of-a' })
  t.match(find('a'), { id: '' })
  environment.rows = [row('a')]
  await list()
  t.strictSame(ids(), ['a'])
  t.match(find('a'), { id: 'a', seenIn: 1 })
})

t.test('the hash of a mint stays known where the list gives no texts', async t => {
  const { environment, inventory, acme, list } = setup(t)
  inventory.minted('acme', description('shop'), minted('a'))
  environment.rows = [row('a', { text: undefined })]
  for (let count = 0; count < 2; count++) {
    await list()
    t.match(acme.find({ hash: tokenHash('text-of-a'), id: undefined }), { id: 'a' })
  }
})

t.test('a token revoked by us is not live, whatever a list shows', async t => {
  const { environment, inventory, acme, list, find, advance } = setup(t)
  environment.rows = [row('a')]
  await list()
  inventory.revoked('acme', 'a')
  t.match(find('a'), { revoked: true, revokedByUs: true })
  await list()
  t.match(find('a'), { revoked: true, revokedByUs: true })
  t.strictSame([...acme.namespaces()], [])
  advance(600_000)
  await list()
  t.match(find('a'), { revoked: false, revokedByUs: true }, 'the revocation was lost')
})

t.test('a change while a list is read is not undone by that list', async t => {
  const { environment, inventory, list, find, ids } = setup(t)
  environment.rows = [row('a')]
  environment.during = async () => {
    inventory.revoked('acme', 'a')
    inventory.minted('acme', description('shop'), minted('b'))
  }
  await list()
  t.match(find('a'), { revoked: true, revokedByUs: true })
  t.strictSame(ids(), ['a', 'b'])
})

t.test('a token that the environment mints again after its revocation is a new one', async t => {
  const { environment, inventory, list, find } = setup(t)
  inventory.revoked('acme', 'a')
  inventory.minted('acme', description('shop'), minted('a'))
  environment.rows = [row('a')]
  await list()
  t.match(find('a'), { revoked: false, revokedByUs: false })
})

t.test('a term begins with nothing', async t => {
  const { environment, inventory, acme, list, ids, find } = setup(t)
  environment.rows = [row('a')]
  await list()
  inventory.minted('acme', description('shop'), minted('b'))
  inventory.revoked('acme', 'a')
  inventory.begin(live)
  t.match(acme, { lists: 0, listedAt: undefined })
  t.strictSame(ids(), [])
  environment.rows = [row('a'), row('c')]
  await list()
  t.strictSame(ids(), ['a', 'c'], 'a mint of an earlier term counts as what the list says')
  t.match(find('a'), { revokedByUs: true })
})

t.test('where the environment cannot list, the mints of this process are known', async t => {
  const { environment, inventory, acme, list, ids, advance } = setup(t)
  environment.unsupported = true
  await list()
  t.match(acme, { lists: 0, unsupported: true, failed: 0 })
  inventory.minted('acme', description('shop'), minted('a'))
  inventory.minted('acme', description('shop'), minted('b'))
  inventory.revoked('acme', 'b')
  advance(3_600_000)
  await list()
  t.strictSame(ids(), ['a', 'b'])
  inventory.begin(live)
  t.strictSame(ids(), [])
  await list()
  t.strictSame(ids(), ['a'], 'also those of an earlier term')
})

t.test('marks are those of the last list, and ours also while no list shows them', async t => {
  const { environment, inventory, acme, list } = setup(t)
  const mark = (nonce: string, over: Partial<ListedToken> = {}) =>
    row(`id-${nonce}`, { description: markDescription('one', nonce), ...over })
  const marks = () => Object.fromEntries(acme.marks())
  inventory.minted('acme', markDescription('one', 'own'), minted('id-own'))
  const own = { id: 'id-own', shown: false, mintedByUs: true }
  t.strictSame(marks(), { own })
  environment.rows = [mark('own'), mark('foreign'), mark('dead', { revoked: true })]
  environment.rows.push(mark('over', { expiresAt: start }))
  environment.rows.push(mark('x', { description: markDescription('two', 'x') }))
  await list()
  const foreign = { id: 'id-foreign', shown: true, mintedByUs: false }
  t.strictSame(marks(), { own: { ...own, shown: true }, foreign })
  environment.rows = []
  await list()
  t.strictSame(marks(), { own })
  environment.rows = [mark('own')]
  await list()
  t.strictSame(marks(), { own: { ...own, shown: true } })
  inventory.revoked('acme', 'id-own')
  t.strictSame(marks(), {})
  await list()
  t.strictSame(marks(), {}, 'revoked by us, although the list shows it')
  t.strictSame(acme.ofNamespace(''), [])
})

t.test('callers share a list that has not begun, and not one that has', async t => {
  const { environment, inventory, list, advance } = setup(t)
  await list()
  advance(4900)
  const waiting = [inventory.refresh('acme', live), inventory.refresh('acme', live)]
  await setImmediate()
  t.equal(environment.lists, 1, 'five seconds after the list before it')
  await Promise.all(waiting)
  t.equal(environment.lists, 2)
})

t.test('a list under way is not shared', async t => {
  const { environment, inventory, list, advance } = setup(t)
  const begun = Promise.withResolvers<void>()
  const finish = Promise.withResolvers<void>()
  environment.during = () => {
    begun.resolve()
    return finish.promise
  }
  const first = list()
  await begun.promise
  const second = inventory.refresh('acme', live)
  advance(5000)
  finish.resolve()
  await Promise.all([first, second])
  t.equal(environment.lists, 2)
})

t.test('a caller that leaves does not end the list of the others', async t => {
  const { environment, inventory, acme } = setup(t)
  const leaving = new AbortController()
  environment.during = async () => leaving.abort()
  const stays = inventory.refresh('acme', live)
  await t.rejects(inventory.refresh('acme', leaving.signal), { code: 'aborted' })
  await stays
  t.equal(acme.lists, 1)
})

t.test('a list that ends after its term changes nothing', async t => {
  const { environment, inventory, acme, term } = setup(t)
  environment.rows = [row('a')]
  environment.during = async () => term.abort()
  await t.rejects(inventory.refresh('acme', live), { code: 'aborted' })
  t.match(acme, { lists: 0, failed: 0 })
  await t.rejects(inventory.refresh('acme', live), { code: 'aborted' }, 'and none begins')
  t.equal(environment.lists, 1)
})

t.test('a token that this process minted is known as such while lists show it', async t => {
  const { environment, inventory, list, find } = setup(t)
  environment.rows = [row('a'), row('b')]
  await list()
  inventory.minted('acme', description('shop'), minted('b'))
  inventory.minted('acme', description('shop'), { ...minted(undefined), text: 'text-of-c' })
  environment.rows.push(row('c'))
  for (let count = 0; count < 2; count++) {
    await list()
    t.match(find('a'), { mintedByUs: false })
    t.match(find('b'), { mintedByUs: true })
    t.match(find('c'), { mintedByUs: true })
  }
})

t.test('listeners are called after each complete list', async t => {
  const { environment, inventory, list } = setup(t)
  const heard: string[] = []
  inventory.onList(organization => heard.push(organization))
  await list()
  environment.unsupported = true
  await list()
  t.strictSame(heard, ['acme'])
})

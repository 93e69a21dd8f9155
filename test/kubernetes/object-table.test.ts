import t from 'tap'
import { createObjectTable } from '../../src/kubernetes/object-table.ts'

function setup() {
  const changes: string[] = []
  const table = createObjectTable({
    key: (item: { metadata: { name: string; resourceVersion: string } }) => item.metadata.name,
    read: item => item.metadata.resourceVersion,
    changed: (key, before, after) => changes.push(`${key} ${before ?? '-'} ${after ?? '-'}`),
  })
  const at = (name: string, resourceVersion: string) => ({ metadata: { name, resourceVersion } })
  const replace = (items: ReturnType<typeof at>[], version: string, anew = false) => {
    const replacement = table.replace()
    for (const item of items) replacement.add(item)
    replacement.complete(version, anew)
  }
  return { table, changes, at, replace }
}

t.test('a late change does not replace a newer one', async t => {
  const { table, changes, at } = setup()
  table.upsert(at('a', '10'))
  table.upsert(at('a', '9'))
  t.equal(table.get('a'), '10')
  table.remove(at('a', '11'))
  table.upsert(at('a', '10'))
  t.equal(table.get('a'), undefined, 'a removed object does not come back')
  table.upsert(at('a', '12'))
  t.equal(table.get('a'), '12', 'unless it was made anew')
  t.strictSame(changes, ['a - 10', 'a 10 -', 'a - 12'])
})

t.test('resource versions are compared as numbers of any length', async t => {
  const { table, at } = setup()
  table.upsert(at('a', '9007199254740993'))
  table.upsert(at('a', '9007199254740992'))
  t.equal(table.get('a'), '9007199254740993')
  table.upsert(at('b', '9'))
  table.upsert(at('b', '10'))
  t.equal(table.get('b'), '10')
})

t.test('a list removes every object that it does not contain', async t => {
  const { table, changes, at, replace } = setup()
  replace([at('a', '1'), at('b', '2')], '2')
  replace([at('b', '3')], '3')
  t.strictSame([...table.keys()], ['b'])
  t.strictSame(changes, ['a - 1', 'b - 2', 'a 1 -', 'b 2 3'])
})

t.test('a list that is older than our own write does not undo this write', async t => {
  const { table, at, replace } = setup()
  table.upsert(at('a', '110'))
  replace([], '100')
  t.equal(table.get('a'), '110')
  replace([], '110')
  t.equal(table.get('a'), undefined)
})

t.test('the same version twice counts as one change', async t => {
  const { table, changes, at } = setup()
  table.upsert(at('a', '1'))
  table.upsert(at('a', '1'))
  t.strictSame(changes, ['a - 1'])
})

t.test('a list from a restored API server replaces everything known', async t => {
  const { table, changes, at, replace } = setup()
  replace([at('kept', '5'), at('lost', '90')], '100')
  table.remove(at('back', '95'))
  table.upsert(at('written', '110'))
  replace([at('kept', '5'), at('back', '50')], '60', true)
  t.strictSame([...table.keys()].sort(), ['back', 'kept'])
  t.strictSame(changes.slice(3), ['lost 90 -', 'written 110 -', 'back - 50'])
  table.upsert(at('lost', '61'))
  t.equal(table.get('lost'), '61', 'versions count from there')
})

t.test('a list decides about every object that is not newer than the list', async t => {
  const { table, at, replace } = setup()
  table.upsert(at('a', '90'))
  replace([at('a', '80')], '100')
  t.equal(table.get('a'), '80', 'a version that the API server does not have any more')
})

t.test('a list decides about every removal that is not newer than the list', async t => {
  const { table, at, replace } = setup()
  table.upsert(at('a', '80'))
  table.remove(at('a', '90'))
  replace([at('a', '80')], '100')
  t.equal(table.get('a'), '80', 'a removal that the API server does not know any more')
  table.remove(at('a', '110'))
  replace([at('a', '80')], '100')
  t.equal(table.get('a'), undefined, 'a removal that is newer than the list')
})

t.test('a list that never becomes complete changes nothing', async t => {
  const { table, at } = setup()
  table.upsert(at('a', '1'))
  table.replace().add(at('b', '2'))
  t.strictSame([...table.keys()], ['a'])
})

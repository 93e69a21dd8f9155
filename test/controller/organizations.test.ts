import t from 'tap'
import { createOrganizationsInUse } from '../../src/controller/organizations.ts'

const rules = {
  organization: 'acme',
  namespaceOrganizations: { shop: 'acme-shop' },
  selectableOrganizations: [{ organization: 'acme-data', namespaces: ['data-*'] }],
}

function setup(text?: string) {
  const note = { text, writes: 0, fails: false }
  const inUse = createOrganizationsInUse(rules, {
    read: async () => {
      if (note.fails) throw new Error('cannot read the Lease')
      return note.text
    },
    write: async written => {
      note.text = written
      note.writes++
    },
  })
  return { note, inUse }
}

t.test('the organizations of the settings are known without the Lease', async t => {
  const { inUse, note } = setup()
  note.fails = true
  t.same([...inUse.named()], ['acme', 'acme-shop', 'acme-data'])
})

t.test('one that an earlier leader minted in counts until it is forgotten', async t => {
  const { inUse, note } = setup('["former"]')
  t.same([...(await inUse.all())], ['acme', 'acme-shop', 'acme-data', 'former'])
  await inUse.forget('former')
  t.notOk((await inUse.all()).has('former'))
  t.equal(note.text, '[]')
})

t.test('it is written once, before the first token, and whole', async t => {
  const { inUse, note } = setup('["former"]')
  await Promise.all(['acme', 'acme-shop', 'acme'].map(inUse.remember))
  await inUse.remember('acme')
  t.equal(note.text, '["acme","acme-shop","former"]')
  t.equal(note.writes, 2)
})

t.test('an organization of the settings is not forgotten', async t => {
  const { inUse, note } = setup('["acme"]')
  await inUse.forget('acme')
  t.equal(note.writes, 0)
})

t.test('what another leader wrote is read again', async t => {
  const { inUse, note } = setup()
  await inUse.all()
  note.text = '["theirs"]'
  inUse.reload()
  t.ok((await inUse.all()).has('theirs'))
})

t.test('a Lease that cannot be read is asked again; a damaged note is an empty one', async t => {
  const { inUse, note } = setup('{"not":"a list"}')
  note.fails = true
  await t.rejects(inUse.all())
  note.fails = false
  t.equal((await inUse.all()).size, 3)
})

import t from 'tap'
import { createOrganizationsInUse } from '../../src/controller/organizations.ts'
import { KubernetesError } from '../../src/kubernetes/client.ts'

const rules = {
  organization: 'acme',
  namespaceOrganizations: { shop: 'acme-shop' },
  selectableOrganizations: [{ organization: 'acme-data', namespaces: ['data-*'] }],
}

function setup(text?: string) {
  const note = { text, writes: 0, fails: false, other: undefined as string | undefined }
  const inUse = createOrganizationsInUse(rules, {
    read: async () => {
      if (note.fails) throw new Error('cannot read the Lease')
      return note.text
    },
    write: async written => {
      if (note.other !== undefined) {
        note.text = note.other
        note.other = undefined
        throw new KubernetesError('cannot annotate', { status: 409 })
      }
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

t.test('an organization of an earlier leader is used until it is forgotten', async t => {
  const { inUse, note } = setup('["former"]')
  t.same([...(await inUse.all())], ['acme', 'acme-shop', 'acme-data', 'former'])
  await inUse.forget('former')
  t.notOk((await inUse.all()).has('former'))
  t.equal(note.text, '[]')
})

t.test('an organization is recorded once, before its first token', async t => {
  const { inUse, note } = setup('["former"]')
  await Promise.all(['acme', 'acme-shop', 'acme'].map(inUse.remember))
  await inUse.remember('acme')
  t.equal(note.text, '["acme","acme-shop","former"]')
  t.equal(note.writes, 2)
})

t.test('what another process has written meanwhile is read, and kept', async t => {
  const { inUse, note } = setup('["former"]')
  await inUse.all()
  note.other = '["former","other"]'
  await inUse.remember('acme')
  t.equal(note.text, '["acme","former","other"]')
  t.ok((await inUse.all()).has('other'))
})

t.test('an organization that the settings name is not forgotten', async t => {
  const { inUse, note } = setup('["acme"]')
  await inUse.forget('acme')
  t.equal(note.writes, 0)
})

t.test('organizations that another leader recorded are read again', async t => {
  const { inUse, note } = setup()
  await inUse.all()
  note.text = '["theirs"]'
  inUse.reload()
  t.ok((await inUse.all()).has('theirs'))
})

t.test('a Lease is read again after an error, and damaged data counts as empty', async t => {
  const { inUse, note } = setup('{"not":"a list"}')
  note.fails = true
  await t.rejects(inUse.all())
  note.fails = false
  t.equal((await inUse.all()).size, 3)
})

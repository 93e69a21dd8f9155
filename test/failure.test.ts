import t from 'tap'
import { createFailureStore, type Failure, readShared, writeShared } from '../src/failure.ts'

const failure: Failure = {
  scope: 'organization',
  subject: 'acme',
  code: 'unavailable',
  message: 'cannot mint (HTTP 503, request 1f-2)',
  passing: true,
  retryAt: undefined,
}
const ofNamespace: Failure = { ...failure, scope: 'namespace', subject: 'shop' }

t.test('each subject has one failure; a repetition is not new', async t => {
  const store = createFailureStore()
  let changes = 0
  store.onChange(() => changes++)
  t.equal(store.set(failure), true)
  t.equal(store.set({ ...failure, message: failure.message.replace('1f-2', '3a-4') }), false)
  t.equal(store.get('organization', 'acme')?.message, failure.message, 'the first text stays')
  t.equal(store.set({ ...failure, subject: 'other' }), true)
  t.equal(store.set({ ...failure, code: 'not_a_member' }), true)
  store.clear('organization', 'acme')
  store.clear('organization', 'acme')
  t.equal(changes, 4)
  t.strictSame(
    store.all().map(({ subject }) => subject),
    ['other'],
  )
})

t.test('what the leader writes, every replica reads', async t => {
  const [leader, follower] = [createFailureStore(), createFailureStore()]
  t.equal(writeShared(leader), undefined)
  leader.set(failure)
  leader.set(ofNamespace)
  follower.replaceShared(readShared(writeShared(leader)))
  t.strictSame(follower.all(), [failure], 'a failure of one namespace is not among it')
  leader.clear('organization', 'acme')
  follower.replaceShared(readShared(writeShared(leader)))
  t.strictSame(follower.all(), [])
})

t.test('of a text that is none of ours nothing is read', async t => {
  const texts = ['', '{', 'null', '7', '[null, 7, {}]', JSON.stringify([ofNamespace])]
  for (const text of texts) t.strictSame(readShared(text), [])
  const many = Array.from({ length: 1000 }, (_, n) => ({ ...failure, subject: `${n}` }))
  t.ok(readShared(JSON.stringify(many)).length <= 100)
})

t.test('a long message is cut, for all replicas alike', async t => {
  const [leader, follower] = [createFailureStore(), createFailureStore()]
  leader.set({ ...failure, message: 'x'.repeat(100_000) })
  follower.replaceShared(readShared(writeShared(leader)))
  t.strictSame(follower.all(), leader.all())
  t.ok((writeShared(leader) ?? '').length < 1000)
})

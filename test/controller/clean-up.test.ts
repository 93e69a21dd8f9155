import t from 'tap'
import type { Alone } from '../../src/controller/alone.ts'
import { cleanUp } from '../../src/controller/clean-up.ts'
import type { Orphans } from '../../src/controller/orphans.ts'
import type { Inventory } from '../../src/issuer/inventory.ts'
import { createPullSecretIndex } from '../../src/pull-secret/cache.ts'
import type { SecretStore } from '../../src/pull-secret/store.ts'
import { rules } from './fixture.ts'

const { signal } = new AbortController()
const alone: Alone = {
  obtain: async () => ['acme'],
  keep: async () => ['acme'],
  mayRevoke: () => true,
}

/** Tokens of namespaces that do not exist, and a limit of revocations. */
function setup(names: string[], perPause: number) {
  const left = new Set(names)
  let room = perPause
  const orphans: Orphans = {
    pending: () => room > 0,
    pausedMs: () => {
      const isLimited = room === 0
      if (isLimited) room = perPause
      return isLimited ? 5 : 0
    },
    namespaces: () => [...left],
    collect: async name => {
      if (room === 0 || name === 'stuck') return 0
      room -= 1
      left.delete(name)
      return 1
    },
  }
  const said: string[] = []
  const report = { done: (what: string) => void said.push(what), waits: () => {} }
  const store = { readNamespace: async () => undefined } as unknown as SecretStore
  const inventory = {} as Inventory
  const run = () =>
    cleanUp(
      { index: createPullSecretIndex(rules), store, inventory, orphans, alone, report },
      { rules, former: false },
      signal,
    )
  return { run, said, left }
}

t.test('more tokens than the limit of revocations allows are revoked in turns', async t => {
  const names = Array.from({ length: 10 }, (_, index) => `ns-${index}`)
  const { run, said, left } = setup(names, 3)
  await run()
  t.same([...left], [])
  t.equal(said.length, 10)
})

t.test('tokens that cannot be revoked are an error that names their namespaces', async t => {
  const { run, left } = setup(['stuck', 'other'], 100)
  await t.rejects(run(), /^CleanUpError: cannot revoke the tokens of stuck$|cannot revoke .* stuck/)
  t.same([...left], ['stuck'])
})

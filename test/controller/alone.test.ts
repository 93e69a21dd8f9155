import type { V1Lease } from '@kubernetes/client-node'
import t from 'tap'
import { createAlone, createLeaseView, type LeaseView } from '../../src/controller/alone.ts'
import type { Identity } from '../../src/controller/identity.ts'
import type { Inventory } from '../../src/issuer/inventory.ts'

const { signal } = new AbortController()

/** The Lease, as each read in turn finds it; the last state stays. */
function leases(...states: V1Lease[]): LeaseView {
  let index = 0
  return createLeaseView({ read: async () => states[Math.min(index++, states.length - 1)] })
}

function lease(holderIdentity: string, renewals: number, alone?: string): V1Lease {
  const annotations = alone === undefined ? undefined : { 'pullpass.io/alone': alone }
  return {
    metadata: { ...(annotations && { annotations }) },
    spec: { holderIdentity, leaseDurationSeconds: 1, leaseTransitions: renewals },
  }
}

t.test('who leads, as the Lease shows', async t => {
  const rows: [what: string, view: LeaseView, leads: boolean, alone: string[]][] = [
    ['no Lease', createLeaseView({ read: async () => undefined }), false, []],
    ['a Lease that was released', leases(lease('', 1)), false, []],
    ['a Lease that is renewed', leases(lease('a', 1), lease('a', 2)), true, []],
    ['one that is not renewed, as in a clone', leases(lease('a', 1, '["acme"]')), false, ['acme']],
    [
      'one whose holder says where it may revoke',
      leases(lease('a', 1), lease('a', 2, '["acme"]')),
      true,
      ['acme'],
    ],
    ['one with a damaged annotation', leases(lease('a', 1), lease('a', 2, '{"acme"')), true, []],
  ]
  for (const [what, view, leads, alone] of rows) {
    const found = await view.look(signal)
    t.same([found.leads, [...found.alone]], [leads, alone], what)
  }
})

interface Shown {
  marks: string[]
  unsupported: boolean
}

/** One organization, acme. */
function setup(
  view: LeaseView,
  shown: Shown,
  { listEveryMs = 20, ...identity }: Partial<Identity> & { listEveryMs?: number } = {},
) {
  const said: string[] = []
  let lists = 0
  const inventory = {
    organization: () => ({
      unsupported: shown.unsupported,
      marks: () => new Map(shown.marks.map(nonce => [nonce, { id: nonce }])),
    }),
  } as unknown as Inventory
  const alone = createAlone(
    {
      list: async () => {
        lists += 1
        return ['acme']
      },
      lease: view,
      identity: {
        begin: () => {},
        onList: async () => {},
        alarm: () => undefined,
        mayRevoke: () => false,
        takeBack: async () => {},
        ...identity,
      },
      nonces: async () => new Set(['ours']),
      inventory,
      waits: what => void said.push(what),
    },
    { listEveryMs },
    signal,
  )
  return { alone, said, lists: () => lists }
}

const led = (alone: string): LeaseView => ({
  look: async () => ({ leads: true, alone: new Set(JSON.parse(alone)) }),
})
const free: LeaseView = { look: async () => ({ leads: false, alone: new Set() }) }
const ours = { marks: ['ours'], unsupported: false }

t.test('beside a leader that says that it is alone, one list is enough', async t => {
  const { alone, said } = setup(led('["acme"]'), ours)
  t.equal(alone.mayRevoke('acme'), false, 'not before')
  t.same(await alone.obtain(), ['acme'])
  t.equal(alone.mayRevoke('acme'), true)
  t.equal(alone.mayRevoke('other'), false)
  t.same(said, [])
})

t.test('beside a leader that does not say so it waits, and then fails', async t => {
  const { alone, said, lists } = setup(led('["other"]'), ours)
  await t.rejects(alone.obtain(), /not certain .* nothing is revoked/)
  t.equal(alone.mayRevoke('acme'), false)
  t.equal(said.length, 1, 'says once what it waits for')
  t.ok(lists() >= 2)
})

t.test('a mark that is not on the Lease counts more than what the leader says', async t => {
  const { alone } = setup(led('["acme"]'), { ...ours, marks: ['ours', 'theirs'] })
  await t.rejects(alone.obtain(), /another pullpass uses the name of this cluster/)
})

t.test('without a leader it goes by a mark of its own', async t => {
  let looks = 0
  const { alone, lists } = setup(free, ours, {
    onList: async () => void looks++,
    mayRevoke: () => looks >= 3,
  })
  t.same(await alone.obtain(), ['acme'])
  t.equal(lists(), 3)
  t.equal(alone.mayRevoke('acme'), true)
})

t.test('an alarm about its own mark ends it at once', async t => {
  const { alone, lists } = setup(free, ours, { alarm: () => 'another pullpass' })
  await t.rejects(alone.obtain(), /another pullpass/)
  t.equal(lists(), 1)
})

t.test('where the environment cannot list, nothing is revoked', async t => {
  const { alone } = setup(led('["acme"]'), { marks: [], unsupported: true })
  await t.rejects(alone.obtain(), /cannot list .* nothing is revoked/)
})

t.test('a list that is older than the interval is read again', async t => {
  for (const [listEveryMs, expected] of [
    [3_600_000, 1],
    [0, 2],
  ] as const) {
    const { alone, lists } = setup(led('["acme"]'), ours, { listEveryMs })
    await alone.obtain()
    await alone.keep()
    t.equal(lists(), expected)
  }
})

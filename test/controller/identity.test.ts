import { pino } from 'pino'
import { Registry } from 'prom-client'
import t from 'tap'
import { createIdentity } from '../../src/controller/identity.ts'
import {
  type ListedToken,
  type MintedToken,
  type MintRequest,
  TokenError,
} from '../../src/issuer/issuer.ts'
import { createOrganizationTokens } from '../../src/issuer/organization-tokens.ts'
import { tokenHash } from '../../src/jwt.ts'

const cluster = 'b2c1a8a0-0000-4000-8000-1f2e3d4c5b6a'
const minute = 60_000
const hour = 60 * minute

/** An environment with one organization, acme, and a clock for all who use it. */
function createEnvironment() {
  const rows: ListedToken[] = []
  const environment = {
    rows,
    time: Date.parse('2026-01-01T00:00:00Z'),
    mintsFail: false,
    canList: true,
    /** Rows that no list shows. */
    hidden: (_: ListedToken) => false,
    now: () => new Date(environment.time),
    mint: async ({ description, permanent }: MintRequest) => {
      if (environment.mintsFail) {
        const details = { kind: 'transient', scope: 'environment', code: 'outage' } as const
        throw new TokenError('the environment does not answer', details)
      }
      const id = `token-${rows.length + 1}`
      const expiresAt = permanent ? undefined : new Date(environment.time + 24 * hour)
      const token = { id, text: `text-of-${id}`, expiresAt }
      rows.push({ ...token, description, revoked: false, readOnly: true })
      return token
    },
    list: async (_organization: string, row: (token: ListedToken) => void) => {
      for (const each of rows) if (!environment.hidden(each)) row({ ...each })
      return 'complete' as const
    },
    revoke: async (_organization: string, id: string) => {
      for (const row of rows) if (row.id === id) row.revoked = true
    },
    /** The nonces of live marks. */
    marks: () =>
      rows
        .filter(row => !row.revoked && (row.expiresAt?.getTime() ?? 0) > environment.time)
        .map(({ description }) => description.split('/').at(-1)),
  }
  return environment
}

type Environment = ReturnType<typeof createEnvironment>

/** The leader of one cluster (or release), which a Lease outlives. */
function createLeader(
  environment: Environment,
  lease: { text: string | undefined } = { text: undefined },
) {
  const { now } = environment
  const metrics = new Registry()
  const inventory = createLists(environment)
  let leads = true
  const identity = createIdentity(
    {
      inventory,
      issuer: environment,
      note: {
        read: async () => lease.text,
        write: async text => {
          lease.text = text
        },
      },
      organizationsInUse: async () => new Set(['acme']),
      now,
      logger: pino({ level: 'silent' }),
      metrics,
      assertLeading: () => {
        if (!leads) throw new Error('this process does not lead')
      },
    },
    { cluster, listEveryMs: minute },
  )
  let term = new AbortController()
  const begin = () => {
    term.abort()
    term = new AbortController()
    inventory.begin()
    identity.begin(term.signal)
  }
  begin()
  return {
    lease,
    begin,
    alarm: () => identity.alarm(),
    mayRevoke: (mintedByUs = false) => identity.mayRevoke({ organization: 'acme', mintedByUs }),
    metric: async () =>
      (await metrics.getSingleMetric('pullpass_identity_alarm')?.get())?.values[0]?.value,
    stop: () => {
      leads = false
      term.abort()
    },
    list: async () => {
      await inventory.list()
      await identity.onList('acme')
    },
  }
}

type Leader = ReturnType<typeof createLeader>

/** The real inventory of one organization, without the pause between two lists. */
function createLists(environment: Environment) {
  const create = () => createOrganizationTokens(environment, { organization: 'acme', cluster })
  let tokens = create()
  let listedAt: Date | undefined
  return {
    begin: () => {
      const former = tokens
      tokens = create()
      tokens.remember(former)
      listedAt = undefined
    },
    list: async () => {
      listedAt = environment.now()
      const reading = tokens.read({ hashes: new Set(), ids: new Set() }, listedAt)
      await environment.list('acme', reading.row)
      reading.complete()
    },
    organization: () => ({
      lists: tokens.lists(),
      listedAt,
      unsupported: !environment.canList,
      marks: tokens.marks,
    }),
    minted: (_organization: string, description: string, token: MintedToken) =>
      tokens.minted(description, token, tokenHash(token.text)),
    revoked: (_organization: string, id: string) => tokens.revoked(id),
  }
}

/** Every leader lists once a minute, at a moment of its own. */
async function pass(environment: Environment, ms: number, ...leaders: Leader[]): Promise<void> {
  for (const end = environment.time + ms; environment.time < end; ) {
    const before = environment.time
    for (const [index, leader] of leaders.entries()) {
      environment.time = before + (index + 1) * 10_000
      await leader.list()
    }
    environment.time = before + minute
  }
}

const uses = /another pullpass uses the name of this cluster, b2c1a8a0-.*clusterName/

t.test('a leader alone revokes after two lists have shown its mark, not before', async t => {
  const environment = createEnvironment()
  const leader = createLeader(environment)
  t.equal(leader.mayRevoke(), false, 'before the first list')
  await pass(environment, minute, leader)
  t.equal(environment.marks().length, 1)
  t.equal(leader.mayRevoke(), false, 'after the list before the mark')
  await pass(environment, minute, leader)
  t.equal(leader.mayRevoke(), false, 'after one list with the mark')
  await pass(environment, minute, leader)
  t.equal(leader.mayRevoke(), true)
  t.equal(leader.alarm(), undefined)
  t.equal(await leader.metric(), 0)
})

t.test('where nothing can be listed any more, only own mints may be revoked', async t => {
  const environment = createEnvironment()
  const leader = createLeader(environment)
  await pass(environment, 5 * minute, leader)
  environment.canList = false
  t.equal(leader.mayRevoke(), false)
  t.equal(leader.mayRevoke(true), true)
  leader.begin()
  t.equal(leader.mayRevoke(), false, 'in a term without a list too')
  t.equal(leader.mayRevoke(true), true)
})

t.test('an alarm goes on where nothing can be listed any more', async t => {
  const { environment, production, startClone } = await withSnapshot(hour)
  await pass(environment, 3 * minute, startClone(), production)
  environment.canList = false
  t.match(production.alarm(), uses)
  t.equal(production.mayRevoke(true), false)
})

t.test('two lists at short intervals are not enough: a clone needs time to answer', async t => {
  const environment = createEnvironment()
  const leader = createLeader(environment)
  for (let list = 0; list < 6; list++) {
    await leader.list()
    environment.time += 5000
  }
  t.equal(leader.mayRevoke(), false)
})

t.test('the nonce is on the Lease before the mark is made', async t => {
  const environment = createEnvironment()
  environment.mintsFail = true
  const leader = createLeader(environment)
  await pass(environment, 2 * minute, leader)
  const written = Object.keys(JSON.parse(leader.lease.text ?? '{}'))
  t.equal(written.length, 1, 'one nonce, whatever the number of tries')
  environment.mintsFail = false
  await pass(environment, minute, leader)
  t.strictSame(environment.marks(), written)
})

t.test('the mark is renewed every twelve hours, and revoking goes on', async t => {
  const environment = createEnvironment()
  const leader = createLeader(environment)
  await pass(environment, 5 * minute, leader)
  const first = environment.marks()
  let refused = 0
  for (let left = 48 * 60; left > 0; left--) {
    await pass(environment, minute, leader)
    if (!leader.mayRevoke()) refused++
  }
  t.equal(refused, 0)
  t.equal(environment.marks().length, 1, 'former marks are revoked')
  t.notSame(environment.marks(), first)
  t.equal(environment.rows.length, 5)
  t.equal(leader.alarm(), undefined)
})

t.test('the successor of a leader knows its mark and replaces it', async t => {
  const environment = createEnvironment()
  const lease = { text: undefined }
  const former = createLeader(environment, lease)
  await pass(environment, 5 * minute, former)
  former.stop()
  const leader = createLeader(environment, lease)
  await pass(environment, minute, leader)
  t.equal(leader.alarm(), undefined)
  t.equal(environment.marks().length, 1)
  t.equal(leader.mayRevoke(), false, 'it begins anew')
  await pass(environment, 2 * minute, leader)
  t.equal(leader.mayRevoke(), true)
})

t.test('a process that does not lead makes and revokes no mark', async t => {
  const environment = createEnvironment()
  const leader = createLeader(environment)
  await pass(environment, minute, leader)
  const marks = environment.marks()
  leader.stop()
  await pass(environment, 30 * hour, leader)
  t.strictSame(environment.rows.length, marks.length)
  t.equal(leader.mayRevoke(), false)
  t.equal(leader.alarm(), undefined)
})

/** Production has led for some time when a snapshot of its etcd is taken. */
async function withSnapshot(quietMs: number) {
  const environment = createEnvironment()
  const production = createLeader(environment)
  await pass(environment, hour, production)
  const snapshot = { ...production.lease }
  await pass(environment, quietMs, production)
  const startClone = () => createLeader(environment, { ...snapshot })
  return { environment, production, snapshot, startClone }
}

t.test(
  'a clone never may revoke, whatever the age of its snapshot, nor may production',
  async t => {
    for (const quietMs of [0, 5 * minute, 11 * hour, 13 * hour, 48 * hour]) {
      const { environment, production, startClone } = await withSnapshot(quietMs)
      const clone = startClone()
      for (let list = 0; list < 10; list++) {
        await pass(environment, minute, clone, production)
        t.equal(clone.mayRevoke(), false, `the clone, list ${list}`)
        if (list > 0) t.equal(production.mayRevoke(), false, `production, list ${list}`)
      }
      t.match(clone.alarm(), uses)
      t.match(production.alarm(), uses)
      t.equal(await clone.metric(), 1)
    }
  },
)

t.test('a clone that takes the mark away before any list has shown it is noticed', async t => {
  const environment = createEnvironment()
  const production = createLeader(environment)
  await production.list()
  const clone = createLeader(environment, { ...production.lease })
  for (let list = 0; list < 8; list++) {
    await pass(environment, minute, clone, production)
    t.equal(clone.mayRevoke() || production.mayRevoke(), false)
  }
  t.match(clone.alarm(), uses)
  t.match(production.alarm(), uses)
})

t.test('the alarm goes on for two quiet days, over restarts of either side', async t => {
  const { environment, production, startClone } = await withSnapshot(hour)
  const clone = startClone()
  let [first, second] = [production, clone]
  await pass(environment, 3 * minute, first, second)
  for (let hours = 0; hours < 48; hours += 8) {
    await pass(environment, 4 * hour, first, second)
    first.stop()
    first = createLeader(environment, production.lease)
    await pass(environment, 4 * hour, first, second)
    second.stop()
    second = createLeader(environment, clone.lease)
    for (let list = 0; list < 5; list++) {
      await pass(environment, minute, first, second)
      t.equal(first.mayRevoke() || second.mayRevoke(), false)
    }
    t.match(first.alarm(), uses)
    t.match(second.alarm(), uses)
  }
  t.ok(environment.marks().length <= 4)
})

t.test('production that was down when the clone began is safe from its own restart on', async t => {
  const { environment, production, startClone } = await withSnapshot(0)
  production.stop()
  await pass(environment, 20 * hour)
  const clone = startClone()
  await pass(environment, hour, clone)
  const again = createLeader(environment, production.lease)
  for (let list = 0; list < 5; list++) {
    await pass(environment, minute, again, clone)
    t.equal(again.mayRevoke(), false)
    if (list > 0) t.equal(clone.mayRevoke(), false)
  }
  t.match(again.alarm(), uses)
})

t.test('the alarm ends after the other side is gone and its mark has expired', async t => {
  const { environment, production, startClone } = await withSnapshot(hour)
  const clone = startClone()
  await pass(environment, 3 * hour, production, clone)
  clone.stop()
  await pass(environment, 20 * hour, production)
  t.match(production.alarm(), uses)
  await pass(environment, 5 * hour, production)
  t.equal(production.alarm(), undefined)
  t.equal(production.mayRevoke(), true)
})

t.test('etcd restored in place: an alarm until the mark before the restore expires', async t => {
  const { environment, production, snapshot } = await withSnapshot(13 * hour)
  production.stop()
  const leader = createLeader(environment, { ...snapshot })
  await pass(environment, hour, leader)
  t.match(leader.alarm(), uses)
  await pass(environment, 25 * hour, leader)
  t.equal(leader.alarm(), undefined)
  t.equal(leader.mayRevoke(), true)
})

t.test('etcd restored in place under a running leader: it knows what it made', async t => {
  const { environment, production, snapshot } = await withSnapshot(13 * hour)
  production.lease.text = snapshot.text
  production.begin()
  await pass(environment, 3 * minute, production)
  t.equal(production.alarm(), undefined)
  t.equal(production.mayRevoke(), true)
})

t.test('two releases in one cluster see each other', async t => {
  const environment = createEnvironment()
  const one = createLeader(environment)
  const other = createLeader(environment)
  await pass(environment, 2 * minute, one, other)
  t.match(one.alarm(), uses)
  t.match(other.alarm(), uses)
})

t.test('a mark that somebody revoked is made anew, and nothing is revoked meanwhile', async t => {
  const environment = createEnvironment()
  const leader = createLeader(environment)
  await pass(environment, 5 * minute, leader)
  for (const row of environment.rows) row.revoked = true
  await pass(environment, minute, leader)
  t.equal(environment.marks().length, 1, 'at once')
  t.equal(leader.mayRevoke(), false)
  await pass(environment, 3 * minute, leader)
  t.equal(leader.mayRevoke(), true)
})

t.test('a list that never shows a mark: an alarm, and few marks', async t => {
  const environment = createEnvironment()
  environment.hidden = ({ expiresAt }) => expiresAt !== undefined
  const leader = createLeader(environment)
  await pass(environment, hour, leader)
  t.match(leader.alarm(), /does not list the mark of this cluster/)
  t.equal(leader.mayRevoke(), false)
  t.ok(environment.rows.length <= 10, `${environment.rows.length} marks in an hour`)
  environment.hidden = () => false
  await pass(environment, 3 * minute, leader)
  t.equal(leader.alarm(), undefined)
  t.equal(environment.marks().length, 1)
})

t.test(
  'a mark is ours if its nonce is on the Lease now, also if another process wrote it',
  async t => {
    const environment = createEnvironment()
    const lease: { text: string | undefined } = { text: undefined }
    const leader = createLeader(environment, lease)
    await pass(environment, 5 * minute, leader)
    const written = JSON.parse(lease.text ?? '{}')
    lease.text = JSON.stringify({ ...written, other: environment.now().toISOString() })
    await environment.mint({
      organization: 'acme',
      description: `pullpass/${cluster}//other`,
      permanent: false,
    })
    await pass(environment, minute, leader)
    t.equal(leader.alarm(), undefined)
    await pass(environment, 13 * hour, leader)
    t.ok('other' in JSON.parse(lease.text ?? '{}'), 'and stays on it')
  },
)

t.test('a damaged note on the Lease is as good as none', async t => {
  for (const text of ['', 'no JSON', '[]', 'null', '{"a":1,"b":"x"}']) {
    const environment = createEnvironment()
    const leader = createLeader(environment, { text })
    await pass(environment, 3 * minute, leader)
    t.equal(leader.mayRevoke(), true, text)
  }
})

import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { startReplicas } from '../../sandbox/replicas.ts'
import { reachCheckedCluster } from './checked-cluster.ts'

/** UAA locks the account at five failures within 20 minutes. pullpass stays well below. */
const most = 3
const wrongKey = 'this-is-not-the-key'

const replicas = await startReplicas({
  count: 3,
  apiKey: wrongKey,
  settings: { leader: { leaseSeconds: 3, renewSeconds: 1 }, shutdown: { drainMs: 0 } },
})
t.teardown(replicas.stop)
const { environment, all } = replicas
const cluster = await reachCheckedCluster(t, replicas)

/** Logins that fail or whose answer is lost. Refreshes name no user, and do not count. */
const failures = () =>
  environment.ledger
    .logins()
    .filter(({ kind, outcome }) => kind === 'api_key' && outcome !== 'granted')

async function restartAll(): Promise<void> {
  await Promise.all(all.map(replica => replica.kill()))
  await Promise.all(all.map(replica => replica.restart()))
}

/** What the leader reports like this. */
async function reported(text: RegExp): Promise<string | undefined> {
  const { warnings } = await (await replicas.whenLed()).pullpass.readyz()
  return warnings.find(warning => text.test(warning))
}

/** Resolves when the leader reports this. */
async function whenReported(text: RegExp): Promise<string> {
  let found: string | undefined
  const look = async () => {
    found = await reported(text)
    return found !== undefined
  }
  await waitFor(look, { withinMs: 30_000, what: `a warning like ${text}` })
  return found ?? ''
}

/** No login may be sent before this time, whatever the credentials are. */
const limit = /next login at (\S+Z)(?: if the login server answers then)?$/

t.test('three replicas with a wrong key log in once, however often they restart', async t => {
  await cluster.namespace('shop')
  await whenReported(/login was refused/)
  for (let round = 0; round < 3; round++) {
    await restartAll()
    await whenReported(/login was refused.*next login at \S+Z, with other credentials at once/)
  }
  t.equal(failures().length, 1)
})

t.test('wrong keys that are swapped, lost answers and restarts keep the limit', async t => {
  const faults = [
    { fail: 'error_html', when: 'after' },
    { fail: 'reset', when: 'after' },
  ] as const
  for (let round = 0; round < 4; round++) {
    const key = `${wrongKey}-${round % 2}`
    environment.faults.clear()
    const fault = faults[round % 3]
    if (fault !== undefined) environment.faults.set('login', { ...fault, probability: 0.5 })
    await Promise.all(all.map(({ pullpass }) => pullpass.writeApiKey(key)))
    if (round % 2 === 1) await restartAll()
    await whenReported(/next login/)
  }
  environment.faults.clear()
  t.ok(failures().length <= most, `${failures().length} failed logins`)
  t.comment(`${failures().length} failed logins in all`)
})

t.test('a right key waits until the time that the message names, also after a restart', async t => {
  // A process that was killed during a login may have used one of the three.
  for (let count = 0; count < most && !(await reported(limit)); count++) {
    const before = failures().length
    const key = `${wrongKey}-more-${count}`
    await Promise.all(all.map(({ pullpass }) => pullpass.writeApiKey(key)))
    const isSent = async () => failures().length > before || (await reported(limit)) !== undefined
    await waitFor(isSent, { withinMs: 30_000, what: 'a login with another key, or the limit' })
  }
  await whenReported(limit)
  await Promise.all(all.map(({ pullpass }) => pullpass.writeApiKey(environment.apiKey)))
  const first = await namedTime()
  t.ok(first > Date.now() && first < Date.now() + 1_200_000, new Date(first).toISOString())
  await restartAll()
  t.ok(Math.abs((await namedTime()) - first) <= 2000)
  t.ok(failures().length <= most, `${failures().length} failed logins`)
})

async function namedTime(): Promise<number> {
  return Date.parse(limit.exec(await whenReported(limit))?.[1] ?? '')
}

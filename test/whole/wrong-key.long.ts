import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { startReplicas } from '../../sandbox/replicas.ts'
import { reachCheckedCluster } from './checked-cluster.ts'

/** UAA locks the account at this many failures within 1200 s (cloudfoundry/uaa oauth-endpoints.xml). */
const lockOut = 5
const wrongKey = 'this-is-not-the-key'

const replicas = await startReplicas({
  count: 3,
  apiKey: wrongKey,
  settings: { leader: { leaseSeconds: 3, renewSeconds: 1 }, shutdown: { drainMs: 0 } },
})
t.teardown(replicas.stop)
const { environment, all } = replicas
const cluster = await reachCheckedCluster(t, replicas)
const failures = () => environment.ledger.logins().filter(({ outcome }) => outcome !== 'granted')

t.test('three replicas with a wrong key, restarted ten times, do not lock the account', async t => {
  await cluster.namespace('shop')
  await waitFor(() => failures().length > 0, { withinMs: 20_000, what: 'the first login' })
  for (let round = 0; round < 10; round++) {
    await Promise.all(all.map(replica => replica.kill()))
    await Promise.all(all.map(replica => replica.restart()))
    const leader = await replicas.whenLed()
    const isReported = async () =>
      (await leader.pullpass.readyz()).warnings.some(note => note.includes('login was refused'))
    await waitFor(isReported, { withinMs: 20_000, what: 'the report of the refusal' })
  }
  t.comment(`${failures().length} failed logins in 30 starts after the first`)
  t.ok(failures().length < lockOut, `${failures().length} of ${lockOut} failures that lock`)
})

t.test('the right key is tried at once by the current leader', async t => {
  await Promise.all(all.map(({ pullpass }) => pullpass.writeApiKey(environment.apiKey)))
  await cluster.whenRight('shop', 20_000)
  t.equal(environment.ledger.liveTokens().length, 1)
})

// Two clusters with one identity, as after an etcd snapshot of one was restored as another.
import type { V1Lease } from '@kubernetes/client-node'
import t from 'tap'
import { startControlPlane } from '../../sandbox/control-plane.ts'
import { installBeside } from '../../sandbox/install.ts'
import { onFreePorts } from '../../sandbox/ports.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { type Pullpass, startPullpass } from '../../sandbox/pullpass.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { optedIn, reachCluster } from './cluster.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { secretsOf } from './tenant.ts'

const controller = { listEverySeconds: 5, revokeGraceSeconds: 1 }
const fixture = await startFixture(t, startSandbox({ settings: { controller } }))
const { environment, pullpass } = fixture
const leases = '/apis/coordination.k8s.io/v1/namespaces/pullpass/leases'
const alarm = /another pullpass uses the name of this cluster/

const clone = await startControlPlane()
t.teardown(() => clone.stop())
const cluster = reachCluster(clone, fixture.hear)
t.teardown(() => cluster.close())
let running: Pullpass | undefined
t.teardown(() => running?.stop())

async function startInClone(clusterName: string): Promise<Pullpass> {
  await running?.stop()
  running = await onFreePorts(async (webhook, operations) => {
    const webhookUrl = `https://127.0.0.1:${webhook}/mutate`
    const { domain } = environment
    await installBeside(clone, { domain, webhookUrl, failurePolicy: 'Ignore' })
    return startPullpass({
      controlPlane: clone,
      environment,
      ports: { webhook, operations },
      settings: { controller },
      launch: program => ({
        ...program,
        env: { ...program.env, PULLPASS_CLUSTER_NAME: clusterName },
      }),
    })
  })
  await running.whenReady()
  return running
}

/** What a snapshot contains. */
async function copyInto(namespace: string, labels: Record<string, string>): Promise<void> {
  await cluster.namespace(namespace, labels)
  const { metadata, type, data } = (await fixture.secret(namespace)) ?? {}
  const { name, annotations } = metadata ?? {}
  const secret = { metadata: { name, labels: metadata?.labels, annotations }, type, data }
  await cluster.ask('POST', secretsOf(namespace), secret)
}

const warnings = async (of: Pullpass) => (await of.readyz()).warnings.join()

async function whenListed(times: number): Promise<void> {
  const end = environment.ledger.lists().length + times
  const isListed = () => environment.ledger.lists().length >= end
  await waitFor(isListed, { withinMs: 300_000, what: `${times} lists` })
}

const names = ['kept', 'left', 'gone']
for (const name of names) await fixture.namespace(name)
for (const name of names) await fixture.whenSecret(name)
const lease = (await fixture.ask<V1Lease>('GET', `${leases}/pullpass`)).body
const { metadata } = (await fixture.ask<V1Lease>('GET', '/api/v1/namespaces/kube-system')).body

t.test('neither of two clusters with one name revokes a token of the other', async t => {
  const before = names.flatMap(fixture.liveTokens)
  await installBeside(clone, {
    domain: environment.domain,
    webhookUrl: 'https://127.0.0.1:1/mutate',
    failurePolicy: 'Ignore',
  })
  await cluster.ask('POST', leases, {
    metadata: { name: 'pullpass', annotations: lease.metadata?.annotations },
    spec: lease.spec,
  })
  await copyInto('kept', optedIn)
  await copyInto('left', {})
  const inClone = await startInClone(metadata?.uid ?? '')
  const isNoticed = async () =>
    alarm.test(await warnings(inClone)) && alarm.test(await warnings(pullpass))
  await waitFor(isNoticed, { withinMs: 120_000, what: 'the alarm on both sides' })
  await whenListed(20)
  t.same(names.flatMap(fixture.liveTokens), before)
  t.ok(await cluster.secret('left'), 'nor is a Secret deleted')
})

t.test('with a name of its own the clone mints tokens of its own', async t => {
  await startInClone('clone')
  const own = () =>
    environment.ledger
      .liveTokens()
      .filter(({ description }) => description.startsWith('pullpass/clone/kept/'))
  await waitFor(() => own().length === 1, { withinMs: 60_000, what: 'a token of the clone' })
  await whenListed(12)
  t.same(
    names.map(name => environment.ledger.revokes().filter(isOf(name)).length),
    [0, 0, 0],
  )
})

function isOf(namespace: string) {
  return ({ description }: { description: string }) =>
    description.startsWith(`pullpass/${metadata?.uid}/${namespace}/`)
}

testInvariants(t, fixture)

import type { CoreV1Event } from '@kubernetes/client-node'
import t from 'tap'
import { releaseNamespace } from '../../sandbox/install.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { pod, references } from './pods.ts'

const fixture = await startFixture(t, startSandbox())
const neverServed = ['kube-system', 'kube-node-lease', releaseNamespace]
const ignored = [...neverServed, 'mistaken']

const labelAs = (namespace: string, value: string) =>
  fixture.ask('PATCH', `/api/v1/namespaces/${namespace}`, {
    metadata: { labels: { 'pullpass.io/inject': value } },
  })

/** The events that say so, in one namespace. */
async function eventsIn(namespace: string): Promise<CoreV1Event[]> {
  const path = `/api/v1/namespaces/${namespace}/events?fieldSelector=reason=InjectLabelIgnored`
  return (await fixture.ask<{ items: CoreV1Event[] }>('GET', path)).body.items
}

t.test('every spelling of true makes a ServiceAccount enforce its mountable secrets', async t => {
  await fixture.namespace('locked')
  await fixture.whenSecret('locked')
  for (const value of ['1', 't', 'T', 'true', 'True', 'TRUE']) {
    const name = `ci-${Buffer.from(value).toString('hex')}`
    const annotations = { 'kubernetes.io/enforce-mountable-secrets': value }
    const accounts = '/api/v1/namespaces/locked/serviceaccounts'
    t.equal((await fixture.ask('POST', accounts, { metadata: { name, annotations } })).status, 201)
    const build = pod(name, { serviceAccountName: name })
    const isKnown = async () =>
      (await fixture.create('locked', build, '?dryRun=All')).status === 201
    await waitFor(isKnown, { withinMs: 10_000, what: `the ServiceAccount with ${value}` })
    const { status, body, warnings } = await fixture.create('locked', build)
    t.same([status, references(body)], [201, []], value)
    t.match(warnings[0], /the ServiceAccount does not let pods use the pull secret/)
  }
})

t.test('a label without effect is reported by one event in its namespace', async t => {
  await fixture.namespace('mistaken', { 'pullpass.io/inject': 'yes' })
  for (const namespace of neverServed) t.equal((await labelAs(namespace, 'enabled')).status, 200)
  for (const namespace of ignored) {
    const isReported = async () => (await eventsIn(namespace)).length > 0
    await waitFor(isReported, { withinMs: 20_000, what: `the event in ${namespace}` })
  }
  for (const namespace of ignored) {
    // Changes that do not touch the label.
    const metadata = { annotations: { touched: 'yes' } }
    await fixture.ask('PATCH', `/api/v1/namespaces/${namespace}`, { metadata })
  }
})

t.test('the value true opts a namespace in', async () => {
  await fixture.namespace('true', { 'pullpass.io/inject': 'true' })
  await fixture.whenSecret('true')
  const isInjected = async () =>
    references((await fixture.create('true', pod('web'), '?dryRun=All')).body).length > 0
  await waitFor(isInjected, { withinMs: 10_000, what: 'a pod to be injected' })
})

// The namespace of the test before was labelled later, and is served: these are not on their way.
t.test('namespaces whose label has no effect get no Secret, token or injection', async t => {
  for (const namespace of ignored) {
    t.equal(await fixture.secret(namespace), undefined, namespace)
    t.same(fixture.mints(namespace), [], namespace)
    const account = { metadata: { name: 'default' } }
    await fixture.ask('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, account)
    const { status, body } = await fixture.create(namespace, pod('web'), '?dryRun=All')
    t.same([status, references(body)], [201, []], namespace)
    const events = await eventsIn(namespace)
    t.equal(events.length, 1, `one event in ${namespace}`)
    t.match(events[0]?.message, namespace === 'mistaken' ? /the value "yes"/ : /never served/)
  }
  const lines = fixture.pullpass.output().match(/the label pullpass.io\/inject has/g) ?? []
  t.equal(lines.length, ignored.length, 'one line in the log for each')
})

testInvariants(t, fixture)

import type { V1Lease, V1Secret } from '@kubernetes/client-node'
import t from 'tap'
import { Agent, fetch } from 'undici'
import type { Fault, Operation } from '../../sandbox/bluemix/faults.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { type Replica, startReplicas } from '../../sandbox/replicas.ts'
import { reachCluster } from './cluster.ts'
import { pod, reviewOf } from './pods.ts'

const replicas = await startReplicas({
  count: 2,
  settings: {
    // Far more than an answer takes, also on a busy machine.
    admission: { waitMs: 4500 },
    bluemix: {
      namespaceOrganizations: {
        'org-missing': 'no-such-organization',
        'org-foreign': '0a1b2c3d-0000-4000-8000-00000000cafe',
      },
    },
  },
})
t.teardown(replicas.stop)
const { environment, all } = replicas
const { faults } = environment
const cluster = reachCluster(replicas.controlPlane, () => {})
t.teardown(() => cluster.close())
const authority = '/api/v1/namespaces/pullpass/secrets/pullpass-ca'
const { body: secret } = await cluster.ask<V1Secret>('GET', authority)
const ca = Buffer.from(secret.data?.['ca.crt'] ?? '', 'base64').toString()
const dispatcher = new Agent({ connect: { ca } })
t.teardown(() => dispatcher.close())
const leader = await replicas.whenLed()
const follower = all.find(replica => replica !== leader) as Replica

/** The warnings of a pod that this replica answers, and how long the answer took. */
async function review(replica: Replica, namespace: string) {
  const started = performance.now()
  const response = await fetch(`https://127.0.0.1:${replica.port}/mutate?timeout=10s`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(reviewOf(namespace, pod('mypod'))),
    dispatcher,
  })
  const answer = (await response.json()) as { response: { warnings?: string[]; patch?: string } }
  const tookMs = performance.now() - started
  return { warnings: answer.response.warnings ?? [], patch: answer.response.patch, tookMs }
}

async function changeKey(key: string, valid = true): Promise<void> {
  if (valid) environment.user.apiKeys.push(key)
  await Promise.all(all.map(({ pullpass }) => pullpass.writeApiKey(key)))
}

/** Resolves when the replica that does not lead gives this reason. */
async function whenKnown(namespace: string, says: RegExp): Promise<void> {
  let last: string[] = []
  const isKnown = async () => {
    last = (await review(follower, namespace)).warnings
    return says.test(last.join())
  }
  await waitFor(isKnown, { withinMs: 20_000, what: `${says}` }).catch(error => {
    throw new Error(`${error.message}; the last was ${last}`)
  })
}

/** The files are looked at every few seconds: labels namespaces until one of them needs a login. */
async function whenLoginFails(name: string, says: RegExp): Promise<void> {
  let count = 0
  const isTried = async () => {
    await cluster.namespace(`${name}-${count++}`)
    return says.test((await leader.pullpass.readyz()).warnings.join())
  }
  await waitFor(isTried, { withinMs: 30_000, what: `the login of ${name} to fail` })
}

async function events(namespace: string): Promise<{ reason: string; note: string }[]> {
  const path = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`
  const { body } = await cluster.ask<{ items: { reason: string; note: string }[] }>('GET', path)
  return body.items.map(({ reason, note }) => ({ reason, note }))
}

async function shared(): Promise<string | undefined> {
  const path = '/apis/coordination.k8s.io/v1/namespaces/pullpass/leases/pullpass'
  const { body } = await cluster.ask<V1Lease>('GET', path)
  return body.metadata?.annotations?.['pullpass.io/failures']
}

interface Row {
  name: string
  faults: [Operation | '*', Fault][]
  /** Another valid key: it makes a login necessary. */
  key?: string
  says: RegExp
  /** Nothing ends it but a change of the settings. */
  lasting?: boolean
}

const rows: Row[] = [
  { name: 'down', faults: [['*', { down: true }]], says: /cannot reach/ },
  { name: 'mint-500', faults: [['mint', { fail: 'error_text' }]], says: /HTTP 500/ },
  { name: 'mint-429', faults: [['mint', { fail: 'rate_limited' }]], says: /too many requests/ },
  {
    name: 'login-503',
    faults: [['login', { fail: 'unavailable' }]],
    key: 'next-Jw5tR8nH3cY6',
    says: /cannot log in: .*HTTP 503/,
  },
  { name: 'org-missing', faults: [], says: /no organization "no-such/, lasting: true },
  { name: 'org-foreign', faults: [], says: /is the user a member/, lasting: true },
]

const textOf = (warnings: string[]) => warnings.map(text => text.replace(/, request [\w:.-]+/, ''))

for (const { name, faults: set, key, says, lasting } of rows) {
  t.test(`${name}: both replicas give the same reason at once`, async t => {
    t.teardown(() => faults.clear())
    for (const [operation, fault] of set) faults.set(operation, fault)
    if (key !== undefined) {
      await changeKey(key)
      await whenLoginFails(name, says)
    }
    await cluster.namespace(name)
    await whenKnown(name, says)
    const pods = Array.from({ length: 20 }, (_, n) => review(n % 2 ? follower : leader, name))
    const answers = await Promise.all(pods)
    t.same(new Set(answers.map(({ warnings }) => warnings.length)), new Set([1]))
    const reasons = new Set(answers.flatMap(({ warnings }) => textOf(warnings)))
    t.equal(reasons.size, 1, [...reasons].join('\n'))
    t.match([...reasons], [/^pull secret pullpass-registry: /])
    t.match([...reasons], [says])
    const slowest = Math.max(...answers.map(({ tookMs }) => tookMs))
    t.ok(slowest < 4000, `the slowest took ${Math.round(slowest)} ms`)
    t.ok(answers.every(({ patch }) => patch !== undefined))
    const warnings = await Promise.all(all.map(async ({ pullpass }) => pullpass.readyz()))
    t.ok(warnings.every(({ ready, warnings }) => ready && warnings.length > 0))
    t.notMatch(JSON.stringify(warnings), name, '/readyz names no namespace')
    if (lasting) return
    faults.clear()
    await cluster.whenSecret(name, undefined, 60_000)
  })
}

t.test('what concerns an organization is an event of the release namespace', async t => {
  const reasons = async () => (await events('pullpass')).map(({ reason }) => reason)
  for (const reason of ['OrganizationNotFound', 'NotAMember']) {
    const isThere = async () => (await reasons()).includes(reason)
    await waitFor(isThere, { withinMs: 30_000, what: reason })
  }
  t.same([...(await events('org-missing')), ...(await events('org-foreign'))], [])
})

t.test('a failure of one namespace stands in its events; another replica points there', async t => {
  await cluster.namespace('full', {})
  const quotas = '/api/v1/namespaces/full/resourcequotas'
  const quota = { metadata: { name: 'few' }, spec: { hard: { 'count/secrets': '0' } } }
  await cluster.ask('POST', quotas, quota)
  const isCounted = async () => {
    const { body } = await cluster.ask<{ status?: { used?: object } }>('GET', `${quotas}/few`)
    return body.status?.used !== undefined
  }
  await waitFor(isCounted, { withinMs: 20_000, what: 'the quota to be counted' })
  await cluster.label('full', 'enabled')
  const isShown = async () => (await events('full')).some(({ note }) => /quota: few/.test(note))
  await waitFor(isShown, { withinMs: 20_000, what: 'the event' })
  const atLeader = await review(leader, 'full')
  t.match(atLeader.warnings, [/^pull secret pullpass-registry: refused: exceeded quota: few/])
  t.ok(atLeader.tookMs < 1000)
  const elsewhere = await review(follower, 'full')
  t.match(elsewhere.warnings, [
    /not ready yet; the kubelet will retry; .*events of namespace full$/,
  ])
  t.ok((await review(follower, 'full')).tookMs < 1500, 'only the first one waits')
})

t.test('the Lease says what lasts, and nothing that is over', async () => {
  const codes = async () => {
    const failures = JSON.parse((await shared()) ?? '[]') as { code: string }[]
    return failures.map(({ code }) => code).toSorted()
  }
  const isSo = async () => (await codes()).join() === 'not_a_member,organization_not_found'
  await waitFor(isSo, { withinMs: 20_000, what: 'the two failures that last' })
})

t.test('a refused login: the same on both, until the key is changed', async t => {
  await changeKey('wrong-Kq7vZ2mB9xL4', false)
  await whenLoginFails('refused', /refused/)
  await cluster.namespace('locked')
  await whenKnown('locked', /login was refused/)
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, n) => review(n % 2 ? follower : leader, 'locked')),
  )
  t.equal(new Set(answers.flatMap(({ warnings }) => warnings)).size, 1)
  t.ok(Math.max(...answers.map(({ tookMs }) => tookMs)) < 1500)
  await changeKey('last-Xb4dS1pM7vN2')
  await cluster.whenSecret('locked', undefined, 60_000)
})

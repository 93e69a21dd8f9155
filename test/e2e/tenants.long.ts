import t from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { pod } from './pods.ts'
import {
  createNeighbours,
  createTenant,
  damaged,
  notesIn,
  secretOf,
  secretsOf,
  type Tenant,
} from './tenant.ts'

const fixture = await startFixture(t, startSandbox())
const { environment, pullpass } = fixture
const { ledger, faults } = environment
const neighbours = await createNeighbours(fixture)

/** Of an attack whose requests have hundreds of kilobytes. */
const LARGE_ACTS = 40

/** A tenant whose labelled namespace has its pull secret. */
async function settled(name: string): Promise<Tenant> {
  const tenant = await createTenant(t, fixture, name)
  await fixture.label(tenant.open, 'enabled')
  await fixture.whenSecret(tenant.open)
  return tenant
}

const annotate = (tenant: Tenant, namespace: string, annotations: Record<string, string>) =>
  tenant.ask('PATCH', secretOf(namespace), { metadata: { annotations } })

/** Replaces the pull secret with another Secret; ours comes back quickly. */
async function plant(tenant: Tenant, secret: object): Promise<void> {
  const isPlanted = async () => {
    await tenant.ask('DELETE', secretOf(tenant.open))
    return (await tenant.ask('POST', secretsOf(tenant.open), secret)).status === 201
  }
  await waitFor(isPlanted, { withinMs: 20_000, what: `a Secret of the tenant in ${tenant.open}` })
}

/** Number of token lists, without those for the first Secrets of the neighbours. */
function countLists() {
  const [lists, before] = [ledger.requests('list').length, neighbours.count()]
  return () => ledger.requests('list').length - lists - (neighbours.count() - before)
}

async function whenNoted(namespace: string, text: RegExp): Promise<void> {
  const isNoted = async () => (await notesIn(fixture, namespace)).some(note => text.test(note))
  await waitFor(isNoted, { withinMs: 20_000, what: `an event in ${namespace} with ${text}` })
}

t.test('an organization that a tenant invents is never looked up', async t => {
  const tenant = await createTenant(t, fixture, 'made-up')
  faults.set('organizations', { fail: 'rate_limited', retryAfterSeconds: 40 })
  t.teardown(() => faults.clear())
  const before = ledger.requests('organizations').length
  const lists = countLists()
  await neighbours.besides(t, async round => {
    const annotations = { 'pullpass.io/organization': `made-up-${round}` }
    const { status } = await annotate(tenant, tenant.plain, annotations)
    if (status === 404) await tenant.ask('POST', secretsOf(tenant.plain), damaged(annotations))
  })
  t.equal(ledger.requests('organizations').length, before)
  t.ok(lists() <= 3, `${lists()} lists beside those of the neighbours`)
})

t.test('an immutable Secret with changing annotations costs no token', async t => {
  const tenant = await settled('immutable')
  const lists = countLists()
  await plant(tenant, damaged({}, { immutable: true }))
  await neighbours.besides(t, async round => {
    await annotate(tenant, tenant.open, { round: `${round}` })
  })
  t.ok(fixture.mints(tenant.open).length <= 2, `${fixture.mints(tenant.open).length} mints`)
  t.ok(lists() <= 6, `${lists()} lists beside those of the neighbours`)
  await whenNoted(tenant.open, /immutable/)
  const { warnings } = await tenant.create(tenant.open, pod('mypod'))
  t.match(warnings, [/^pull secret pullpass-registry: .*immutable/])
  t.same((await pullpass.readyz()).warnings, [])
})

t.test('an immutable Secret that returns again and again costs three tokens', async t => {
  const tenant = await settled('planted')
  await neighbours.besides(t, async () => {
    await tenant.ask('DELETE', secretOf(tenant.open))
    await tenant.ask('POST', secretsOf(tenant.open), damaged({}, { immutable: true }))
  })
  t.ok(fixture.mints(tenant.open).length <= 3, `${fixture.mints(tenant.open).length} mints`)
})

t.test('a Secret that is too large to be written costs no token', async t => {
  const tenant = await settled('large')
  const lists = countLists()
  const filling = 'x'.repeat(261_900)
  await plant(tenant, damaged({ filling }))
  const act = (round: number) => annotate(tenant, tenant.open, { r: `${round}` })
  await neighbours.besides(t, act, LARGE_ACTS)
  t.ok(fixture.mints(tenant.open).length <= 2, `${fixture.mints(tenant.open).length} mints`)
  t.ok(lists() <= 6, `${lists()} lists beside those of the neighbours`)
  t.same((await pullpass.readyz()).warnings, [])
})

t.test('a Secret that is deleted in a loop costs few lists and no token', async t => {
  const tenant = await settled('deleted')
  const lists = countLists()
  await neighbours.besides(t, () => tenant.ask('DELETE', secretOf(tenant.open)))
  t.ok(lists() <= 6, `${lists()} lists beside those of the neighbours`)
  t.equal(fixture.mints(tenant.open).length, 1)
  await whenNoted(tenant.open, /^the pull secret is changed too often; next try at /)
})

t.test('if tokens cannot be listed, at most three tokens are minted', async t => {
  faults.set('list', { fail: 'unsupported' })
  t.teardown(() => faults.clear())
  const tenant = await settled('unlisted')
  await neighbours.besides(t, () => tenant.ask('DELETE', secretOf(tenant.open)))
  t.ok(fixture.mints(tenant.open).length <= 3, `${fixture.mints(tenant.open).length} mints`)
  t.ok(fixture.liveTokens(tenant.open).length <= 3)
})

t.test('an annotation cannot cause the token of another namespace to be revoked', async t => {
  faults.set('list', { fail: 'unsupported' })
  t.teardown(() => faults.clear())
  const victim = await settled('victim')
  const [token] = fixture.liveTokens(victim.open)
  const tenant = await settled('thief')
  const annotations = {
    'pullpass.io/previous-token-id': token?.id ?? '',
    'pullpass.io/minted-at': '2020-01-01T00:00:00Z',
  }
  await neighbours.besides(t, () => annotate(tenant, tenant.open, annotations), 30)
  const isTaken = () => fixture.liveTokens(victim.open).length === 0
  await annotate(tenant, tenant.open, { 'pullpass.io/token-id': token?.id ?? '' })
  await tenant.ask('DELETE', secretOf(tenant.open))
  await neighbours.measure()
  t.equal(isTaken(), false)
  t.equal(ledger.revokes().filter(({ id }) => id === token?.id).length, 0)
})

t.test('long annotations cause no long log lines, and few events', async t => {
  const tenant = await settled('long')
  const long = (round: number) => `${round}-`.padEnd(80_000, 'Ab')
  const act = async (round: number) => {
    const annotations = {
      'pullpass.io/organization': long(round),
      'pullpass.io/token-id': long(round),
      'pullpass.io/previous-token-id': long(round),
    }
    await annotate(tenant, tenant.open, annotations)
    const { status } = await annotate(tenant, tenant.plain, annotations)
    if (status === 404) await tenant.ask('POST', secretsOf(tenant.plain), damaged(annotations))
  }
  await neighbours.besides(t, act, LARGE_ACTS)
  const lengths = pullpass
    .output()
    .split('\n')
    .map(line => line.length)
  t.ok(Math.max(...lengths) < 2000, `the longest line has ${Math.max(...lengths)} characters`)
  for (const namespace of [tenant.open, tenant.plain]) {
    const warnings = await notesIn(fixture, namespace)
    t.ok(new Set(warnings).size <= 5, `${warnings.length} events in ${namespace}`)
  }
})

t.test('a Secret with our label and no token of its namespace is left alone', async t => {
  const tenant = await createTenant(t, fixture, 'planted-plain')
  const secret = damaged({ 'pullpass.io/organization': 'acme' })
  await tenant.ask('POST', secretsOf(tenant.plain), secret)
  await neighbours.besides(t, round => annotate(tenant, tenant.plain, { round: `${round}` }))
  const changes = (await fixture.controlPlane.audit()).filter(
    ({ verb, user, objectRef }) =>
      ['delete', 'patch'].includes(verb) &&
      user.username === 'system:serviceaccount:pullpass:pullpass' &&
      objectRef?.namespace === tenant.plain,
  )
  t.same(changes, [])
})

t.test('a quota that refuses the Secret is reported before a token is minted', async t => {
  const tenant = await createTenant(t, fixture, 'quota')
  await fixture.ask('POST', `/api/v1/namespaces/${tenant.open}/resourcequotas`, {
    metadata: { name: 'few-secrets' },
    spec: { hard: { 'count/secrets': '0' } },
  })
  const isCounted = async () => {
    const path = `/api/v1/namespaces/${tenant.open}/resourcequotas/few-secrets`
    const { body } = await fixture.ask<{ status?: { used?: object } }>('GET', path)
    return body.status?.used !== undefined
  }
  await waitFor(isCounted, { withinMs: 20_000, what: 'the quota to be counted' })
  await fixture.label(tenant.open, 'enabled')
  await whenNoted(tenant.open, /exceeded quota: few-secrets/)
  const { warnings } = await tenant.create(tenant.open, pod('mypod'))
  t.match(warnings, [/^pull secret pullpass-registry: .*exceeded quota: few-secrets/])
  t.same(fixture.mints(tenant.open), [])
})

t.test('the message of a policy that refuses the Secret is reported', async t => {
  const tenant = await createTenant(t, fixture, 'policy')
  const policies = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies'
  const resources = [
    { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['secrets'] },
  ]
  await fixture.ask('POST', policies, {
    metadata: { name: 'team-label' },
    spec: {
      failurePolicy: 'Fail',
      matchConstraints: { resourceRules: resources },
      validations: [
        {
          expression: "has(object.metadata.labels) && 'team' in object.metadata.labels",
          message: 'every Secret needs the label team',
        },
      ],
    },
  })
  await fixture.ask('POST', `${policies.replace('policies', 'policybindings')}`, {
    metadata: { name: 'team-label' },
    spec: {
      policyName: 'team-label',
      validationActions: ['Deny'],
      matchResources: {
        namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': tenant.open } },
      },
    },
  })
  const isInForce = async () => {
    const other = { ...damaged(), metadata: { name: 'other' } }
    return (await tenant.ask('POST', `${secretsOf(tenant.open)}?dryRun=All`, other)).status === 422
  }
  await waitFor(isInForce, { withinMs: 20_000, what: 'the policy to be in force' })
  await fixture.label(tenant.open, 'enabled')
  await whenNoted(tenant.open, /every Secret needs the label team/)
  t.same(fixture.mints(tenant.open), [])
})

t.test('the organizations in use are recorded on the Lease for the next leader', async t => {
  const path = '/apis/coordination.k8s.io/v1/namespaces/pullpass/leases/pullpass'
  const { body } = await fixture.ask<{ metadata: { annotations: Record<string, string> } }>(
    'GET',
    path,
  )
  t.equal(body.metadata.annotations['pullpass.io/organizations'], '["acme"]')
})

t.test('/readyz and /metrics name no namespace after all of these tests', async t => {
  const { body } = await fixture.ask<{ items: { metadata: { name: string } }[] }>(
    'GET',
    '/api/v1/namespaces',
  )
  const names = body.items.map(({ metadata }) => metadata.name)
  const theirs = names.filter(name => /-(open|plain)$|^neighbour-/.test(name))
  t.ok(theirs.length > 20)
  const said = `${JSON.stringify(await pullpass.readyz())}\n${await pullpass.metrics()}`
  t.same(
    theirs.filter(name => said.includes(name)),
    [],
  )
  t.ok((await fixture.count('pullpass_namespace_failures')) > 0, 'they are counted')
})

testInvariants(t, fixture)

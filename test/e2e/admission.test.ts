import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import type { CoreV1Event, V1Pod } from '@kubernetes/client-node'
import { generate } from 'selfsigned'
import t, { type Test } from 'tap'
import { logIn } from '../../sandbox/bluemix/log-in.ts'
import { releaseNamespace } from '../../sandbox/install.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { pullImage, pushTestImage } from '../../sandbox/registry.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { notReady } from '../../src/webhook/await-secret.ts'
import { optedIn } from './cluster.ts'
import { startFixture, testInvariants } from './fixture.ts'
import { elsewhere, image, pod, reference, references, reviewOf } from './pods.ts'

const fixture = await startFixture(t, startSandbox())
const { environment, controlPlane, pullpass, webhook } = fixture
const patch = [{ op: 'add', path: '/spec/imagePullSecrets', value: [reference] }]

/** The pod after a dry run or a creation with kubectl. */
async function created(command: string, object: V1Pod): Promise<{ pod: V1Pod; warnings: string }> {
  const { code, stdout, stderr } = await fixture.kubectl(`${command} -f FILE -o json`, object)
  if (code !== 0) throw new Error(stderr)
  return { pod: JSON.parse(stdout), warnings: stderr.trim() }
}

await fixture.namespace('shop')
await fixture.namespace('quiet', {})

t.test('the first pod gets the reference, and its namespace the Secret', async t => {
  const { pod: made, warnings } = await created('create -n shop', pod('mypod'))
  t.same(made.spec?.imagePullSecrets, [reference])
  t.equal(warnings, '')
  const secret = await fixture.whenSecret('shop')
  t.match(secret, {
    type: 'kubernetes.io/dockerconfigjson',
    metadata: {
      labels: { 'pullpass.io/pull-secret': 'true' },
      annotations: { 'pullpass.io/organization': 'acme' },
    },
  })
})

t.test('the Secret equals the result of step 6 of the manual procedure', async t => {
  const { data } = await fixture.whenSecret('shop')
  const { code, stdout } = await controlPlane.kubectl(
    ...['create', 'secret', 'docker-registry', 'by-hand', '--dry-run=client', '-o', 'json'],
    `--docker-server=${environment.hosts.registry}`,
    '--docker-username=token',
    `--docker-password=${fixture.liveTokens('shop')[0]?.text}`,
  )
  t.equal(code, 0)
  t.same(data, JSON.parse(stdout).data)
})

t.test('the image can be pulled with the Secret, and not without it', async t => {
  const credential = { username: 'bearer', password: await logIn(environment) }
  const digest = await pushTestImage(image, credential, environment)
  const { data } = await fixture.whenSecret('shop')
  const config = Buffer.from(data?.['.dockerconfigjson'] ?? '', 'base64').toString()
  t.match(await pullImage(image, config, environment), { ok: true, digest })
  t.match(await pullImage(image, undefined, environment), { ok: false })
})

const mirror = { annotations: { 'kubernetes.io/config.mirror': 'abc' } }
const other = { containers: [{ name: 'main', image: elsewhere }] }
const container = (name: string) => ({ name: 'main', image: name })

/** Pods as they are written, and the pull secrets that they have when they are created. */
const table: [pod: V1Pod, references: (string | undefined)[], where?: string][] = [
  [pod('one-container'), ['pullpass-registry']],
  [
    pod('only-init', { ...other, initContainers: [{ name: 'init', image }] }),
    ['pullpass-registry'],
  ],
  [
    pod('only-volume', { ...other, volumes: [{ name: 'data', image: { reference: image } }] }),
    ['pullpass-registry'],
  ],
  [
    pod('digest', { containers: [container(`${image}@sha256:${'a'.repeat(64)}`)] }),
    ['pullpass-registry'],
  ],
  [pod('own-list', { imagePullSecrets: [{ name: 'mine' }] }), ['mine', 'pullpass-registry']],
  [pod('nameless', { imagePullSecrets: [{}] }), [undefined, 'pullpass-registry']],
  [pod('account-list', { serviceAccountName: 'builder' }), ['theirs', 'pullpass-registry']],
  [
    pod('names-it', { imagePullSecrets: [reference, { name: 'mine' }] }),
    ['pullpass-registry', 'mine'],
  ],
  [pod('constructor', {}, { labels: { constructor: 'x', toString: 'y' } }), ['pullpass-registry']],
  [pod('elsewhere', other), []],
  [pod('evil', { containers: [container(`${environment.hosts.registry}.evil.io/a:1`)] }), []],
  [pod('port', { containers: [container(`${environment.hosts.registry}:5000/a:1`)] }), []],
  [pod('case', { containers: [container('Registry.dedicated.example.com/a:1')] }), []],
  [pod('broken-image', { containers: [container(`${environment.hosts.registry}/A B`)] }), []],
  [pod('opted-out', {}, { labels: { 'pullpass.io/inject': 'disabled' } }), []],
  [pod('opted-out-false', {}, { labels: { 'pullpass.io/inject': 'false' } }), []],
  [pod('mirror', { nodeName: 'node' }, mirror), []],
  [pod('not-labelled'), [], 'quiet'],
]

t.test('a pod gets only the missing reference, and nothing else changes', async t => {
  const account = { metadata: { name: 'builder' }, imagePullSecrets: [{ name: 'theirs' }] }
  const { status } = await fixture.ask('POST', '/api/v1/namespaces/shop/serviceaccounts', account)
  t.equal(status, 201)
  for (const [written, expected, namespace = 'shop'] of table) {
    const { status, body, warnings } = await fixture.create(namespace, written)
    t.same([status, references(body)], [201, expected], written.metadata?.name ?? '')
    t.notMatch(warnings.join(), /pull secret/)
  }
})

t.test('fields of a pod that pullpass does not know are kept', async t => {
  const rich = pod(
    'rich',
    {
      automountServiceAccountToken: false,
      containers: [
        {
          ...container(image),
          env: [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }],
          resources: { requests: { cpu: '10m' }, limits: { 'example.com/thing': '2' } },
          securityContext: { capabilities: { drop: ['ALL'] }, runAsUser: 1000 },
          resizePolicy: [{ resourceName: 'cpu', restartPolicy: 'NotRequired' }],
        },
      ],
      nodeSelector: { constructor: 'x', 'a/b': '' },
      schedulingGates: [{ name: 'example.com/wait' }],
      topologySpreadConstraints: [
        {
          maxSkew: 1,
          topologyKey: 'zone',
          whenUnsatisfiable: 'ScheduleAnyway',
          labelSelector: { matchLabels: { constructor: 'x' } },
        },
      ],
      volumes: [
        { name: 'all', projected: { sources: [{ downwardAPI: { items: [] } }], defaultMode: 256 } },
      ],
    },
    { annotations: { 'a/b__proto__x': '1', note: 'ünï' } },
  )
  const { pod: left } = await created('create -n quiet', rich)
  const { pod: made } = await created('create -n shop', rich)
  t.same(made.spec, { ...left.spec, imagePullSecrets: [reference] })
  t.same(made.metadata?.annotations, left.metadata?.annotations)
})

t.test('a pod with generateName gets the reference, and is logged by this prefix', async t => {
  const { pod: made } = await created('create -n shop', {
    ...pod(''),
    metadata: { generateName: 'web-' },
  })
  t.same([references(made), made.metadata?.name?.startsWith('web-')], [['pullpass-registry'], true])
  t.ok(pullpass.lines('review').some(line => line.pod === 'web-*'))
})

/** A pod with so many variables, each with this value. */
function podWith(name: string, count: number, value: string) {
  const env = Array.from({ length: count }, (_, index) => ({ name: `E${index}`, value }))
  return pod(name, { containers: [{ ...container(image), env }] })
}

t.test('a pod as large as the API server accepts gets the reference', async t => {
  const large = podWith('large', 12, 'x'.repeat(100_000))
  const { status, body } = await fixture.create('shop', large)
  t.same([status, references(body)], [201, ['pullpass-registry']])
})

t.test('a pod with text that grows sixfold in JSON gets the reference', async t => {
  const large = podWith('escaped', 88, '<'.repeat(16_000))
  const { status, body } = await fixture.create('shop', large)
  t.same([status, references(body)], [201, ['pullpass-registry']])
})

t.test('pods in kube-system are not changed, whatever label it has', async t => {
  const review = reviewOf('kube-system', pod('direct'))
  const { status, response } = await webhook.post(review)
  t.same([status, response?.allowed, response?.patch], [200, true, undefined])
})

t.test('a ServiceAccount that enforces mountable secrets causes only a warning', async t => {
  const annotations = { 'kubernetes.io/enforce-mountable-secrets': 'true' }
  const account = { metadata: { name: 'strict', annotations } }
  await fixture.ask('POST', '/api/v1/namespaces/shop/serviceaccounts', account)
  const strict = pod('strict', { serviceAccountName: 'strict' })
  const isKnown = async () => (await fixture.create('shop', strict, '?dryRun=All')).status === 201
  await waitFor(isKnown, { withinMs: 10_000, what: 'the watch event of the ServiceAccount' })
  const { pod: made, warnings } = await created('create -n shop', strict)
  t.same(references(made), [])
  t.match(warnings, /^Warning: pullpass: the ServiceAccount does not let pods use the pull secret/)
})

t.test('a late Secret causes a warning in the output of kubectl, and is created', async t => {
  environment.faults.set('mint', { latencyMs: 4000 })
  t.teardown(() => environment.faults.clear())
  await fixture.namespace('late')
  const { pod: made, warnings } = await created('create -n late', pod('mypod'))
  t.same(references(made), ['pullpass-registry'])
  t.equal(warnings, `Warning: pull secret pullpass-registry: ${notReady('late')}`)
  await fixture.whenSecret('late')
})

t.test('a pod that already names the Secret also waits for it', async t => {
  await fixture.namespace('named')
  const { status, warnings } = await fixture.create(
    'named',
    pod('mypod', { imagePullSecrets: [reference] }),
  )
  t.same([status, warnings], [201, []])
  t.ok(await fixture.secret('named'))
})

t.test('a dry run shows the same pod, does not wait and changes nothing', async t => {
  environment.faults.set('mint', { latencyMs: 3000, fail: 'unavailable' })
  t.teardown(() => environment.faults.clear())
  await fixture.namespace('rehearsal')
  const started = performance.now()
  const { status, body, warnings } = await fixture.create('rehearsal', pod('mypod'), '?dryRun=All')
  t.ok(performance.now() - started < 1500, 'it did not wait')
  t.same([status, references(body)], [201, ['pullpass-registry']])
  t.match(warnings[0], /^pull secret pullpass-registry: /)
  const shown = await created('create -n rehearsal --dry-run=server', pod('mypod'))
  t.same(references(shown.pod), ['pullpass-registry'])
  const pods = await fixture.kubectl('get pods -n rehearsal -o name')
  t.same([pods.stdout, await fixture.secret('rehearsal')], ['', undefined])
  t.same(fixture.mints('rehearsal'), [])
})

t.test('after a change by a later webhook, pullpass is called and adds nothing', async t => {
  await startLaterWebhook(t)
  const asked = () => pullpass.lines('review').filter(line => line.pod === 'twice').length
  const isAskedTwice = async () => {
    const { body } = await fixture.create('shop', pod('twice'), '?dryRun=All')
    t.same(references(body), ['pullpass-registry'])
    return body.metadata?.labels?.later === 'yes'
  }
  await waitFor(isAskedTwice, { withinMs: 10_000, what: 'the later webhook to be called' })
  const before = asked()
  const { pod: made } = await created('create -n shop', pod('twice'))
  t.same([references(made), asked() - before], [['pullpass-registry'], 2])
})

t.test('a review that is sent directly to the port is answered like any other', async t => {
  const review = reviewOf('shop', pod('direct'))
  const { status, response } = await webhook.post(review)
  t.same([status, response?.uid, response?.patch], [200, review.request.uid, patch])
  const again = await webhook.post(
    reviewOf('shop', pod('direct', { imagePullSecrets: [reference] })),
  )
  t.same([again.response?.allowed, again.response?.patch], [true, undefined])
})

t.test('a pod of any JSON shape is answered and never refused', async t => {
  const spec = `{"containers":[{"image":"${image}","__proto__":{"image":1}}],"__proto__":[]}`
  const odd: [pod: string, patch: unknown][] = [
    [`{"__proto__":{"a":1},"constructor":{"prototype":{}},"spec":${spec}}`, patch],
    [`{"metadata":{"labels":{"__proto__":"disabled"}},"spec":${spec}}`, patch],
    [`{"metadata":[],"spec":{"containers":{"image":"${image}"}}}`, undefined],
    [`{"spec":{"containers":[null,7,"x",{"image":{}},{"image":null}]}}`, undefined],
    ['{"spec":null}', undefined],
    ['{}', undefined],
  ]
  for (const [object, expected] of odd) {
    const text = JSON.stringify(reviewOf('shop', 'THE POD')).replace('"THE POD"', object)
    const { status, response } = await webhook.post(text)
    t.same([status, response?.allowed, response?.patch], [200, true, expected], object)
  }
})

t.test('a request that is not a review of a pod is refused with one sentence', async t => {
  const review = reviewOf('shop', pod('direct'))
  const kind = { group: 'apps', version: 'v1', kind: 'Deployment' }
  const unusable: [body: unknown, status: number, sentence: string][] = [
    ['{"half":', 400, 'the body is not JSON'],
    ['[]', 400, 'the body is not an AdmissionReview'],
    [{ ...review, apiVersion: 'admission.k8s.io/v1beta1' }, 400, 'the AdmissionReview is not of'],
    [{ ...review, request: undefined }, 400, 'the AdmissionReview has no request'],
    [reviewOf('shop', pod('a'), { kind }), 400, 'the request is not about a Pod of core/v1'],
    [reviewOf('shop', pod('a'), { uid: '' }), 400, 'the request has no usable uid'],
    [reviewOf('../shop', pod('a')), 400, 'the request names no namespace'],
  ]
  for (const [body, status, sentence] of unusable) {
    const reply = await webhook.post(body)
    t.equal(reply.status, status, sentence)
    t.ok(reply.text.startsWith(sentence), reply.text)
  }
  const { status, text } = await webhook.announce((12 << 20) + 1)
  t.same([status, text], [413, 'the body is larger than 12 MiB, or holds too many values\n'])
})

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

// The namespace of the previous test was labelled later and is served, so these will not follow.
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

t.test('decisions appear in the metrics and in the audit log', async t => {
  for (const outcome of ['injected', 'named_already', 'mountable_secrets_enforced', 'too_large']) {
    t.ok(
      (await fixture.count(`pullpass_admission_reviews_total{outcome="${outcome}"}`)) > 0,
      outcome,
    )
  }
  const audit = await controlPlane.audit()
  const decisions = audit.map(({ annotations }) => annotations?.['inject.pullpass.io/decision'])
  t.ok(decisions.includes('inject') && decisions.includes('leave'))
})

testInvariants(t, fixture)

/** Another webhook, which runs after ours and labels each pod. */
async function startLaterWebhook(t: Test): Promise<void> {
  const { cert, private: key } = await generate([{ name: 'commonName', value: 'later' }], {
    algorithm: 'sha256',
    notBeforeDate: new Date(Date.now() - 600_000),
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] },
    ],
  })
  const server = createServer({ key, cert }, async (request, response) => {
    const { request: review } = (await json(request)) as ReturnType<typeof reviewOf>
    const operations = [{ op: 'add', path: '/metadata/labels', value: { later: 'yes' } }]
    const answer = {
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      response: {
        uid: review.uid,
        allowed: true,
        patchType: 'JSONPatch',
        patch: Buffer.from(JSON.stringify(operations)).toString('base64'),
      },
    }
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answer))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
  const { port } = server.address() as AddressInfo
  const { status } = await fixture.ask('POST', path, {
    metadata: { name: 'zz-later' },
    webhooks: [
      {
        name: 'later.example.com',
        admissionReviewVersions: ['v1'],
        clientConfig: {
          url: `https://127.0.0.1:${port}/`,
          caBundle: Buffer.from(cert).toString('base64'),
        },
        rules: [
          { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] },
        ],
        namespaceSelector: { matchLabels: optedIn },
        sideEffects: 'None',
      },
    ],
  })
  t.equal(status, 201)
  t.teardown(async () => {
    await fixture.ask('DELETE', `${path}/zz-later`)
    server.closeAllConnections()
    server.close()
  })
}

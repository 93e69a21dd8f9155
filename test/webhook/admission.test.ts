import t from 'tap'
import {
  type Decision,
  decide,
  decideByNamespace,
  decideByServiceAccount,
} from '../../src/webhook/decision.ts'
import { imagesOf } from '../../src/webhook/pod.ts'
import { addPullSecret, allowed, patched, warning } from '../../src/webhook/response.ts'
import { type Review, readReview } from '../../src/webhook/review.ts'

const RULES = {
  registryHost: 'registry.d.example.com',
  secretName: 'pullpass-registry',
  releaseNamespace: 'pullpass',
}
const OURS = 'registry.d.example.com/acme/web:1'
const OTHER = 'docker.io/library/nginx'

type Fields = Record<string, unknown>

function pod(spec: Fields, metadata: Fields = {}): Fields {
  return { metadata: { name: 'web-1', ...metadata }, spec: { containers: [], ...spec } }
}

function body(object: unknown, request: Fields = {}): Fields {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'uid-1',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      namespace: 'shop',
      operation: 'CREATE',
      object,
      ...request,
    },
  }
}

function reviewOf(object: unknown, request: Fields = {}): Review {
  const review = readReview(body(object, request))
  if ('problem' in review) throw new Error(review.problem)
  return review
}

t.test('a review is read into its fields', async t => {
  const object = pod({ serviceAccountName: 'builder' })
  t.strictSame(readReview(body(object, { dryRun: true })), {
    uid: 'uid-1',
    namespace: 'shop',
    name: 'web-1',
    pod: object,
    dryRun: true,
    operation: 'CREATE',
    subResource: undefined,
    serviceAccount: 'builder',
  })
})

t.test('the namespace of the request is used, even if the pod names another or none', async t => {
  t.equal(reviewOf(pod({}, { namespace: 'other' })).namespace, 'shop')
  t.equal(reviewOf(pod({}, { namespace: '' })).namespace, 'shop')
})

t.test('a pod with generateName is named by this prefix', async t => {
  const names: [metadata: unknown, request: Fields, name: string][] = [
    [{ name: 'web-1', generateName: 'web-' }, {}, 'web-1'],
    [{ name: '', generateName: 'web-' }, {}, 'web-*'],
    [{ generateName: 'web-' }, {}, 'web-*'],
    [{}, { name: 'asked' }, 'asked'],
    [{}, {}, '(unnamed)'],
    [{ name: 7, generateName: [] }, { name: {} }, '(unnamed)'],
    [null, {}, '(unnamed)'],
    [{ name: 'x'.repeat(10_000) }, {}, 'x'.repeat(253)],
  ]
  for (const [metadata, request, name] of names) {
    t.equal(reviewOf({ metadata, spec: {} }, request).name, name)
  }
})

t.test('a body that is not a review of a pod is refused with one sentence', async t => {
  const { request, ...envelope } = body(pod({}))
  const bodies: [body: unknown, problem: RegExp][] = [
    [undefined, /not an AdmissionReview/],
    [null, /not an AdmissionReview/],
    ['AdmissionReview', /not an AdmissionReview/],
    [[], /not an AdmissionReview/],
    [{}, /not an AdmissionReview/],
    [{ ...envelope, request, kind: 'Pod' }, /not an AdmissionReview/],
    [
      { ...envelope, request, apiVersion: 'admission.k8s.io/v1beta1' },
      /not of admission.k8s.io\/v1/,
    ],
    [envelope, /no request/],
    [{ ...envelope, request: [] }, /no request/],
    [body(pod({}), { uid: undefined }), /no usable uid/],
    [body(pod({}), { uid: '' }), /no usable uid/],
    [body(pod({}), { uid: 7 }), /no usable uid/],
    [body(pod({}), { uid: 'u'.repeat(257) }), /no usable uid/],
    [body(pod({}), { kind: { group: '', version: 'v1', kind: 'Secret' } }), /not about a Pod/],
    [body(pod({}), { kind: { group: 'x.io', version: 'v1', kind: 'Pod' } }), /not about a Pod/],
    [body(pod({}), { kind: 'Pod' }), /not about a Pod/],
    [body(pod({}), { operation: undefined }), /no operation/],
    [body(pod({}), { namespace: '' }), /names no namespace/],
    [body(pod({}), { namespace: '../kube-system' }), /names no namespace/],
    [body(pod({}), { namespace: ['shop'] }), /names no namespace/],
    [body(null), /no pod/],
    [body('pod'), /no pod/],
    [body([]), /no pod/],
  ]
  for (const [given, problem] of bodies) t.match(readReview(given), { problem })
})

t.test('images are found in every field from which the kubelet pulls, each once', async t => {
  const object = pod({
    containers: [{ image: 'a' }, { image: 'b' }, { image: 'a' }, { name: 'no image' }],
    initContainers: [{ image: 'c' }],
    ephemeralContainers: [{ image: 'd' }],
    volumes: [{ image: { reference: 'e' } }, { emptyDir: {} }, { image: 'no image volume' }],
  })
  t.strictSame(imagesOf(object), ['a', 'b', 'c', 'd', 'e'])
})

const ODD_VALUES = [null, undefined, 7, '', 'text', true, [], {}, [null], [7], [[]], [{}], { a: 1 }]

t.test('a pod with fields of any type gets an answer', async t => {
  const fields = ['containers', 'initContainers', 'ephemeralContainers', 'volumes']
  for (const odd of ODD_VALUES) {
    for (const object of [
      { metadata: odd, spec: odd },
      { metadata: { name: odd, generateName: odd, labels: odd, annotations: odd }, spec: {} },
      ...fields.map(field => ({ spec: { [field]: odd } })),
      { spec: { containers: [{ image: odd }], volumes: [{ image: odd }] } },
      { spec: { volumes: [{ image: { reference: odd } }] } },
      { spec: { serviceAccountName: odd, serviceAccount: odd } },
    ]) {
      t.strictSame(decide(reviewOf(object), RULES), { action: 'leave', reason: 'no_private_image' })
    }
    const one = { spec: { containers: [{ image: OURS }], imagePullSecrets: odd } }
    t.match(decide(reviewOf(one), RULES), { action: 'inject' })
    t.equal(addPullSecret(one, RULES.secretName).length, 1)
  }
})

t.test('keys such as __proto__ are treated like any other key', async t => {
  const object = JSON.parse(`{
    "metadata": {"labels": {"__proto__": "x", "constructor": "y"},
                 "annotations": {"__proto__": {"kubernetes.io/config.mirror": "no"}}},
    "__proto__": {"spec": {}}, "constructor": {"prototype": {"spec": null}},
    "spec": {"containers": [{"image": "${OURS}", "__proto__": {"image": "x"}}]}}`)
  t.strictSame(decide(reviewOf(object), RULES), { action: 'inject' })
})

const inject: Decision = { action: 'inject' }
const ensure: Decision = { action: 'ensure' }
const leave = (reason: string) => ({ action: 'leave', reason })
const one = { containers: [{ image: OURS }] }

const DECISIONS: [what: string, object: unknown, request: Fields, decision: unknown][] = [
  ['an image of ours', pod(one), {}, inject],
  ['a dry run', pod(one), { dryRun: true }, inject],
  ['ours among others', pod({ containers: [{ image: OTHER }, { image: OURS }] }), {}, inject],
  ['an init image only', pod({ initContainers: [{ image: OURS }] }), {}, inject],
  ['an image volume only', pod({ volumes: [{ image: { reference: OURS } }] }), {}, inject],
  [
    'our Secret named',
    pod({ ...one, imagePullSecrets: [{ name: 'pullpass-registry' }] }),
    {},
    ensure,
  ],
  ['another Secret named', pod({ ...one, imagePullSecrets: [{ name: 'mine' }] }), {}, inject],
  ['a nameless reference', pod({ ...one, imagePullSecrets: [{}] }), {}, inject],
  ['no image of ours', pod({ containers: [{ image: OTHER }] }), {}, leave('no_private_image')],
  [
    'a registry that only begins like ours',
    pod({
      containers: [
        { image: 'registry.d.example.com.evil.io/x' },
        { image: `${OURS.replace('/', ':5000/')}` },
      ],
    }),
    {},
    leave('no_private_image'),
  ],
  [
    'an image of ours that does not parse',
    pod({ containers: [{ image: 'registry.d.example.com/Acme/web' }] }),
    {},
    leave('no_private_image'),
  ],
  [
    'a mirror pod',
    pod(one, { annotations: { 'kubernetes.io/config.mirror': '' } }),
    {},
    leave('mirror_pod'),
  ],
  ['opted out', pod(one, { labels: { 'pullpass.io/inject': 'disabled' } }), {}, leave('opted_out')],
  ['label enabled', pod(one, { labels: { 'pullpass.io/inject': 'enabled' } }), {}, inject],
  ['label false', pod(one, { labels: { 'pullpass.io/inject': 'false' } }), {}, leave('opted_out')],
  ['label False', pod(one, { labels: { 'pullpass.io/inject': 'False' } }), {}, inject],
  ...['kube-system', 'kube-node-lease', 'pullpass'].map(
    (namespace): [string, unknown, Fields, unknown] => [
      `a pod of ${namespace}`,
      pod(one),
      { namespace },
      leave('namespace_never_served'),
    ],
  ),
  ['a pod of kube-public', pod(one), { namespace: 'kube-public' }, inject],
  [
    'opted out, our Secret named',
    pod(
      { ...one, imagePullSecrets: [{ name: 'pullpass-registry' }] },
      { labels: { 'pullpass.io/inject': 'disabled' } },
    ),
    {},
    leave('opted_out'),
  ],
  ['an update', pod(one), { operation: 'UPDATE' }, leave('not_a_pod_creation')],
  ['a deletion', null, { operation: 'DELETE' }, leave('not_a_pod_creation')],
  [
    'kubectl debug',
    pod({ ephemeralContainers: [{ image: OURS }] }),
    { operation: 'UPDATE', subResource: 'ephemeralcontainers' },
    leave('not_a_pod_creation'),
  ],
  ['a creation below a pod', pod(one), { subResource: 'binding' }, leave('not_a_pod_creation')],
]

t.test('the decision depends on the pod first', async t => {
  for (const [what, object, request, decision] of DECISIONS) {
    t.strictSame(decide(reviewOf(object, request), RULES), decision, what)
  }
})

t.test('the decision then depends on namespace and ServiceAccount', async t => {
  const mirror: Decision = { action: 'leave', reason: 'mirror_pod' }
  t.strictSame(decideByNamespace(inject, true), inject)
  t.strictSame(decideByNamespace(inject, false), leave('namespace_not_opted_in'))
  t.strictSame(decideByNamespace(ensure, false), leave('namespace_not_opted_in'))
  t.strictSame(decideByNamespace(mirror, false), mirror)

  const { secretName } = RULES
  const forbidden = leave('mountable_secrets_enforced')
  t.strictSame(decideByServiceAccount(inject, undefined, secretName), inject)
  t.strictSame(decideByServiceAccount(inject, [], secretName), forbidden)
  t.strictSame(decideByServiceAccount(inject, ['mine'], secretName), forbidden)
  t.strictSame(decideByServiceAccount(inject, ['mine', secretName], secretName), inject)
  t.strictSame(decideByServiceAccount(ensure, [], secretName), ensure)
  t.strictSame(decideByServiceAccount(mirror, [], secretName), mirror)
})

const NAME = RULES.secretName
const CREATED = [{ op: 'add', path: '/spec/imagePullSecrets', value: [{ name: NAME }] }]
const APPENDED = [{ op: 'add', path: '/spec/imagePullSecrets/-', value: { name: NAME } }]

t.test('the reference is appended, and replaces no other', async t => {
  const lists: [present: unknown, operations: unknown][] = [
    [undefined, CREATED],
    [null, CREATED],
    [[], CREATED],
    ['text', CREATED],
    [{}, CREATED],
    [[{ name: 'mine' }], APPENDED],
    [[{ name: 'mine' }, { name: 'sa-secret' }], APPENDED],
    [[{}], APPENDED],
    [[null], APPENDED],
    [[{ name: '' }], APPENDED],
    [[{ name: `${NAME}-2` }], APPENDED],
    [[{ name: NAME }], []],
    [[{ name: 'mine' }, { name: NAME }], []],
    [[{ name: NAME }, { name: NAME }], []],
  ]
  for (const [imagePullSecrets, operations] of lists) {
    const object = pod({ ...one, ...(imagePullSecrets !== undefined && { imagePullSecrets }) })
    const before = structuredClone(object)
    t.strictSame(addPullSecret(object, NAME), operations, JSON.stringify(imagePullSecrets))
    t.strictSame(object, before, 'the pod itself is not touched')
  }
  t.strictSame(addPullSecret({}, NAME), [], 'no spec to add to')
})

t.test('an answer contains UID, patch, patch type and the decision for the audit', async t => {
  t.strictSame(allowed('uid-1', { action: 'leave', reason: 'mirror_pod' }), {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid: 'uid-1',
      allowed: true,
      auditAnnotations: { decision: 'leave', reason: 'mirror_pod' },
    },
  })
  const operations = addPullSecret(pod(one), NAME)
  t.strictSame(patched('uid-1', inject, operations, ['the Secret\nis late']), {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid: 'uid-1',
      allowed: true,
      warnings: ['the Secret is late'],
      auditAnnotations: { decision: 'inject' },
      patchType: 'JSONPatch',
      patch: Buffer.from(JSON.stringify(CREATED)).toString('base64'),
    },
  })
  t.strictSame(patched('uid-1', ensure, []), allowed('uid-1', ensure), 'no operations, no patch')
})

t.test('a warning is one printable line of at most 256 characters', async t => {
  const words = 'the registry refused the login '.repeat(10)
  t.equal(warning('  short\tand \r\n plain '), 'short and plain')
  t.equal(warning('façade \u0007 \u{1f4a5}'), 'fa?ade ? ?')
  t.equal(warning('x'.repeat(256)), 'x'.repeat(256))
  t.equal(warning('x'.repeat(257)), `${'x'.repeat(253)}...`)
  const cut = warning(words)
  t.ok(cut.length <= 256 && cut.length > 236)
  t.ok(words.startsWith(`${cut.slice(0, -3)} `), 'cut between two words')
  t.match(cut, /^[\x20-\x7e]+\.\.\.$/)
})

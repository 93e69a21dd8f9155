import { createHash } from 'node:crypto'
import t from 'tap'
import { chooseOrganization } from '../../src/controller/plan.ts'
import { KubernetesError } from '../../src/kubernetes/client.ts'
import {
  pullSecretManifest,
  readCredential,
  readPullSecret,
} from '../../src/pull-secret/pull-secret.ts'
import { refusalText, writeFailure } from '../../src/pull-secret/store.ts'

const rules = { secretName: 'pullpass-registry', registryHost: 'registry.d.example.com' }
const jti = '637b3d8c-a087-5af9-a636-16e7efc70967'
const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ jti, iss: rules.registryHost })}.c2ln`
const mintedAt = new Date('2026-03-01T12:00:00.000Z')

function manifest(over: Partial<Parameters<typeof pullSecretManifest>[0]> = {}) {
  const token = { text, id: jti, expiresAt: undefined }
  return pullSecretManifest(
    {
      namespace: 'shop',
      token,
      organization: 'acme',
      mintedAt,
      previousTokenId: undefined,
      revokeAt: undefined,
      ...over,
    },
    rules,
  )
}

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64')
const holding = (config: unknown) => ({
  ...manifest(),
  data: { '.dockerconfigjson': encode(config) },
})

t.test('a pull secret equals what kubectl create secret docker-registry creates', async t => {
  const { data, ...rest } = manifest()
  t.strictSame(rest, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name: 'pullpass-registry',
      namespace: 'shop',
      labels: { 'pullpass.io/pull-secret': 'true' },
      annotations: {
        'pullpass.io/token-id': jti,
        'pullpass.io/minted-at': '2026-03-01T12:00:00.000Z',
        'pullpass.io/organization': 'acme',
      },
    },
    type: 'kubernetes.io/dockerconfigjson',
  })
  t.strictSame(JSON.parse(Buffer.from(data?.['.dockerconfigjson'] ?? '', 'base64').toString()), {
    auths: {
      'registry.d.example.com': {
        username: 'token',
        password: text,
        auth: Buffer.from(`token:${text}`).toString('base64'),
      },
    },
  })
})

t.test('a written pull secret is read back, without the credential', async t => {
  const expiresAt = new Date('2026-04-01T00:00:00.000Z')
  const revokeAt = new Date('2026-05-01T00:00:00.000Z')
  const written = manifest({
    token: { text, id: jti, expiresAt },
    previousTokenId: 'before',
    revokeAt,
  })
  const read = readPullSecret(
    { ...written, metadata: { ...written.metadata, uid: 'u', resourceVersion: '9' } },
    rules,
  )
  t.strictSame(read, {
    namespace: 'shop',
    uid: 'u',
    resourceVersion: '9',
    ours: true,
    token: { hash: createHash('sha256').update(text).digest('hex'), id: jti },
    organization: 'acme',
    mintedAt,
    expiresAt,
    previousTokenId: 'before',
    revokeAt,
    immutable: false,
    terminating: false,
    digest: read.digest,
  })
  t.notMatch(JSON.stringify(read), text)
  t.equal(readCredential(written, rules), text)
})

t.test('only a credential that the kubelet would use as written is well-formed', async t => {
  const auth = (name: string, password: string) =>
    Buffer.from(`${name}:${password}`).toString('base64')
  const entry = { username: 'token', password: text, auth: auth('token', text) }
  const host = rules.registryHost
  const rows: [string, unknown, boolean][] = [
    ['as we write it', { auths: { [host]: entry } }, true],
    ['with an e-mail', { auths: { [host]: { ...entry, email: 'a@b.c' } } }, true],
    ['empty auths', { auths: {} }, false],
    ['no auths', {}, false],
    ['null', null, false],
    ['a list', [], false],
    ['a null entry', { auths: { [host]: null } }, false],
    ['another registry', { auths: { 'registry.d.example.com:5000': entry } }, false],
    ['a registry beside ours', { auths: { [host]: entry, 'docker.io': entry } }, false],
    ['another case', { auths: { 'Registry.d.example.com': entry } }, false],
    ['another user', { auths: { [host]: { ...entry, username: 'bearer' } } }, false],
    ['an empty password', { auths: { [host]: { ...entry, password: '' } } }, false],
    ['no auth', { auths: { [host]: { ...entry, auth: undefined } } }, false],
    [
      'an auth that says otherwise',
      { auths: { [host]: { ...entry, auth: auth('token', 'x') } } },
      false,
    ],
  ]
  for (const [sentence, config, expected] of rows) {
    t.equal(readPullSecret(holding(config), rules).token !== undefined, expected, sentence)
  }
  const broken = { ...manifest(), data: { '.dockerconfigjson': 'bm90IGpzb24=' } }
  t.equal(readPullSecret(broken, rules).token, undefined, 'no JSON')
  const empty = { ...manifest(), data: {} }
  t.equal(readPullSecret(empty, rules).token, undefined, 'no data')
})

t.test('a token is known by the hash of its text, and by its jti where that is shown', async t => {
  const idOf = (text: string) =>
    readPullSecret(manifest({ token: { text, id: 'made-up', expiresAt: undefined } }), rules).token
      ?.id
  t.equal(idOf(text), jti)
  t.equal(idOf('opaque'), undefined)
  t.equal(idOf(text.split('.').slice(0, 2).join('.')), jti, 'two parts are enough')
  t.equal(idOf(`${part({})}.${part({ jti: 7 })}.c2ln`), undefined)
  t.equal(idOf(`${part({})}.${part({ jti: 'x'.repeat(300) })}.c2ln`), undefined, 'too long')
})

t.test('a Secret is ours if it has both our label and our type', async t => {
  const ours = manifest()
  t.equal(readPullSecret(ours, rules).ours, true)
  t.equal(readPullSecret({ ...ours, type: 'Opaque' }, rules).ours, false)
  const unlabelled = { ...ours, metadata: { ...ours.metadata, labels: {} } }
  t.equal(readPullSecret(unlabelled, rules).ours, false)
  t.equal(readPullSecret({}, rules).ours, false)
})

t.test('the organization of a namespace is chosen as each row of the table says', async t => {
  const settings = {
    organization: 'acme',
    namespaceOrganizations: { shop: 'acme-shop' },
    selectableOrganizations: [{ organization: 'acme-data', namespaces: ['data-*', 'lab'] }],
  }
  const rows: [string, string | undefined, string][] = [
    ['web', undefined, 'acme'],
    ['web', 'acme', 'acme'],
    ['shop', undefined, 'acme-shop'],
    ['shop', 'acme-shop', 'acme-shop'],
    ['shop', 'acme', 'refused'],
    ['data-lake', 'acme-data', 'acme-data'],
    ['lab', 'acme-data', 'acme-data'],
    ['lab-2', 'acme-data', 'refused'],
    ['web', 'acme-data', 'refused'],
    ['web', '', 'refused'],
    ['constructor', undefined, 'acme'],
  ]
  for (const [namespace, annotation, expected] of rows) {
    const choice = chooseOrganization(namespace, annotation, settings)
    const got = 'refused' in choice ? 'refused' : choice.organization
    t.equal(got, expected, `${namespace} asking for ${annotation ?? 'nothing'}`)
  }
})

t.test('the message of a failure is shown without text that looks like a credential', async t => {
  const quota = 'secrets "pullpass-registry" is forbidden: exceeded quota: few-secrets, used: 0'
  t.equal(refusalText(quota, false), 'exceeded quota: few-secrets, used: 0')
  const quoting = `policy says no to ${encode({ auths: {} })}${'A'.repeat(30)}`
  t.equal(refusalText(quoting, true), 'policy says no to [redacted]')
  t.equal(refusalText('two\n lines', true), 'two lines')
  t.equal(refusalText('x'.repeat(20).concat(' ').repeat(50), true).length, 300)
})

t.test('a failed write is classified as each row of the table says', async t => {
  const rows = [
    [{ status: 409, causes: ['FieldManagerConflict'] }, 'not_managed'],
    [{ status: 409 }, 'transient'],
    [{ status: 404 }, 'gone'],
    [{ status: 403, causes: ['NamespaceTerminating'] }, 'gone'],
    [{ status: 403, grant: 'grant {...}' }, 'forbidden'],
    [{ status: 403 }, 'refused'],
    [{ status: 422 }, 'refused'],
    [{ status: 503 }, 'transient'],
    [{}, 'transient'],
  ] as const
  for (const [details, expected] of rows) {
    const causes = 'causes' in details ? [...details.causes] : []
    t.equal(writeFailure(new KubernetesError('no', { ...details, causes })), expected)
  }
})

t.test('an annotation that is longer than any of ours is ignored', async t => {
  const written = manifest()
  const annotations = Object.fromEntries(
    Object.keys(written.metadata?.annotations ?? {}).map(key => [key, 'A'.repeat(200_000)]),
  )
  const read = readPullSecret({ ...written, metadata: { ...written.metadata, annotations } }, rules)
  t.match(read, { previousTokenId: undefined, organization: undefined, mintedAt: undefined })
})

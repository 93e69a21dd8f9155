import { readdirSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { Agent, fetch } from 'undici'
import { parse } from 'yaml'
import { type ControlPlane, startControlPlane } from '../../sandbox/control-plane.ts'
import { run } from '../../sandbox/processes.ts'
import { tool } from '../../sandbox/tools.ts'
import { isFromRegistry } from '../../src/webhook/image-reference.ts'
import { CHART, createHelm, find, type HelmVersion, type Manifest, MINIMAL } from './helm.ts'

const NAMESPACE = 'pullpass'
const HOST = 'registry.dedicated.example.com'

/** Optional kinds of other projects: accepted with any content. */
const FOREIGN_KINDS: [group: string, kind: string, plural: string][] = [
  ['cert-manager.io', 'Issuer', 'issuers'],
  ['cert-manager.io', 'Certificate', 'certificates'],
  ['monitoring.coreos.com', 'ServiceMonitor', 'servicemonitors'],
  ['monitoring.coreos.com', 'PodMonitor', 'podmonitors'],
  ['monitoring.coreos.com', 'PrometheusRule', 'prometheusrules'],
]

const SECRETS = '/api/v1/secrets'
const IN_SHOP = '/api/v1/namespaces/shop'
const IN_RELEASE = `/api/v1/namespaces/${NAMESPACE}`
const LEASES = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases`
const WEBHOOKS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
const EVENTS = '/apis/events.k8s.io/v1/namespaces/shop/events'
const BINDINGS = '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings'
const NAMED = (name: string) => `fieldSelector=metadata.name%3D${name}`

/**
 * What the ServiceAccount of the chart can and cannot. `POST` creates, `APPLY` is a server-side apply; a
 * request that is let through may still fail for what it says, so only 403 counts as refused.
 */
const MAY: [may: boolean, verb: string, path: string][] = [
  [true, 'GET', '/api/v1/namespaces'],
  [true, 'GET', '/api/v1/namespaces?watch=true&timeoutSeconds=1'],
  [true, 'GET', '/api/v1/namespaces/kube-system'],
  [true, 'GET', '/api/v1/serviceaccounts?watch=true&timeoutSeconds=1'],
  [true, 'GET', `${SECRETS}?${NAMED('pullpass-registry')}`],
  [true, 'GET', `${SECRETS}?${NAMED('pullpass-registry')}&watch=true&timeoutSeconds=1`],
  [true, 'APPLY', `${IN_SHOP}/secrets/pullpass-registry`],
  [true, 'GET', `${IN_SHOP}/secrets/pullpass-registry`],
  [true, 'DELETE', `${IN_SHOP}/secrets/pullpass-registry`],
  [true, 'APPLY', `${IN_RELEASE}/secrets/pullpass-ca`],
  [true, 'GET', `${IN_RELEASE}/secrets/pullpass-ca`],
  [true, 'PUT', `${IN_RELEASE}/secrets/pullpass-ca`],
  [true, 'POST', LEASES],
  [true, 'GET', `${LEASES}/pullpass`],
  [true, 'PUT', `${LEASES}/pullpass`],
  [true, 'GET', `${WEBHOOKS}/pullpass`],
  [true, 'GET', `${WEBHOOKS}?${NAMED('pullpass')}&watch=true&timeoutSeconds=1`],
  [true, 'APPLY', `${WEBHOOKS}/pullpass`],
  [true, 'POST', EVENTS],
  [false, 'PATCH', `${EVENTS}/any`],
  [false, 'GET', SECRETS],
  [false, 'GET', `${SECRETS}?watch=true&timeoutSeconds=1`],
  [false, 'GET', `${IN_SHOP}/secrets`],
  [false, 'GET', `${IN_SHOP}/secrets/another`],
  [false, 'POST', `${IN_SHOP}/secrets`],
  [false, 'APPLY', `${IN_SHOP}/secrets/another`],
  [false, 'DELETE', `${IN_SHOP}/secrets/another`],
  [false, 'DELETE', `${IN_SHOP}/secrets`],
  [false, 'GET', `${IN_SHOP}/secrets/pullpass-ca`],
  [false, 'POST', `${IN_RELEASE}/secrets`],
  [false, 'GET', `${IN_RELEASE}/secrets/bluemix`],
  [false, 'DELETE', `${IN_RELEASE}/secrets/pullpass-ca`],
  [false, 'GET', `${LEASES}/another`],
  [false, 'PUT', `${LEASES}/another`],
  [false, 'DELETE', `${LEASES}/pullpass`],
  [false, 'POST', `/apis/coordination.k8s.io/v1/namespaces/shop/leases`],
  [false, 'GET', WEBHOOKS],
  [false, 'GET', `${WEBHOOKS}/another`],
  [false, 'POST', WEBHOOKS],
  [false, 'APPLY', `${WEBHOOKS}/another`],
  [false, 'DELETE', `${WEBHOOKS}/pullpass`],
  [false, 'GET', '/api/v1/pods'],
  [false, 'POST', `${IN_SHOP}/pods`],
  [false, 'POST', `${IN_SHOP}/pods/any/exec?command=sh`],
  [false, 'PATCH', '/api/v1/namespaces/shop'],
  [false, 'POST', `${IN_SHOP}/serviceaccounts/default/token`],
  [false, 'PATCH', `${IN_SHOP}/serviceaccounts/default`],
  [false, 'POST', BINDINGS],
]

/** Image references for which the expression of the webhook and the parser of the program must agree. */
const IMAGES = [
  `${HOST}/shop/web`,
  `${HOST}/shop/web:1.0`,
  `${HOST}/shop/web@sha256:${'0'.repeat(64)}`,
  `${HOST}:443/shop/web`,
  `${HOST}:5000/shop/web`,
  `${HOST}.evil.io/shop/web`,
  `evil.io/${HOST}/web`,
  `x${HOST}/shop/web`,
  HOST,
  `docker.io/library/nginx`,
  'nginx',
]

let cluster: ControlPlane

t.before(async () => {
  cluster = await startControlPlane()
  const kinds = FOREIGN_KINDS.map(([group, kind, plural]) => customKind(group, kind, plural))
  const namespaces = [NAMESPACE, 'pullpass-selftest', 'shop', 'other'].map(name => namespace(name))
  await apply([...kinds, ...namespaces])
  // The API server looks up the account of a pod, also in a dry run.
  await apply(
    ['pullpass', 'pullpass-selftest', 'pullpass-uninstall'].map(name => serviceAccount(name)),
  )
  for (const [group, , plural] of FOREIGN_KINDS) {
    await kubectl('wait', '--for=condition=Established', `crd/${plural}.${group}`)
  }
})
t.teardown(() => cluster.stop())

t.test('the API server accepts every object that the chart can create', async t => {
  const { plain } = await createHelm(t, 'helm')
  for (const values of readdirSync(join(CHART, 'ci'))) {
    const { stdout } = await plain(['template', 'pullpass', CHART, '-f', join(CHART, 'ci', values)])
    const { code, stderr } = await withFile(t, stdout, file =>
      cluster.kubectl(
        'apply',
        '--server-side',
        '--dry-run=server',
        '--validate=strict',
        '-f',
        file,
      ),
    )
    t.equal(code, 0, `${values}: ${stderr}`)
    t.equal(stderr, '', `${values}: no warning`)
  }
})

t.test('the pods of the chart satisfy the Pod Security level restricted', async t => {
  const { render } = await createHelm(t, 'helm')
  await kubectl('label', 'namespace', NAMESPACE, 'pod-security.kubernetes.io/enforce=restricted')
  const manifests = await render(['-f', MINIMAL], { webhook: { failurePolicy: 'Fail' } })
  const pods = [
    find(manifests, 'Deployment').spec.template,
    find(manifests, 'Job').spec.template,
    find(manifests, 'CronJob').spec.jobTemplate.spec.template,
    find(manifests, 'Pod'),
  ].map(({ spec, metadata }, index) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `pod-${index}`, namespace: NAMESPACE, labels: metadata.labels },
    spec,
  }))
  await apply(pods, '--dry-run=server')
  await kubectl('delete', '--namespace', NAMESPACE, 'serviceaccount', '--all')
})

for (const version of ['helm', 'helm3'] as const) {
  t.test(`${version} installs, upgrades and uninstalls, and keeps the caBundle`, async t => {
    const { plain, install } = await helmOn(t, version)
    const installed = await install('pullpass')
    t.equal(installed.code, 0, installed.stderr)
    t.match(installed.stdout, 'kubectl label namespace NAME pullpass.io/inject=enabled')
    t.match(installed.stdout, 'helm test pullpass --namespace pullpass')

    const caBundle = await trustCluster()
    const upgraded = await install('pullpass', { webhook: { timeoutSeconds: 7 } })
    t.equal(upgraded.code, 0, upgraded.stderr)
    const { stdout } = await kubectl('get', 'mutatingwebhookconfiguration', 'pullpass', '-o=json')
    const [webhook] = JSON.parse(stdout).webhooks
    t.match(webhook, { timeoutSeconds: 7, clientConfig: { caBundle } })

    const removed = await plain(['uninstall', 'pullpass'])
    t.equal(removed.code, 0, removed.stderr)
    const left = await kubectl(
      'get',
      'mutatingwebhookconfigurations,clusterroles,clusterrolebindings,deployments,services,secrets,configmaps,cronjobs',
      `--namespace=${NAMESPACE}`,
      '--selector=app.kubernetes.io/name=pullpass',
      '--output=name',
    )
    t.equal(left.stdout, '')
  })
}

t.test('the printed command makes a Job for a former name of the cluster', async t => {
  const { plain, install } = await helmOn(t, 'helm')
  t.equal((await install('pullpass')).code, 0)
  const docs = await readFile(join(import.meta.dirname, '../../docs/operations.md'), 'utf8')
  const [line = ''] = /^kubectl create job former.*?create -f -$/ms.exec(docs) ?? []
  const { code, stderr } = await run({
    command: '/bin/sh',
    args: ['-c', line],
    env: {
      PATH: `${dirname(await tool('kubectl'))}:${process.env.PATH}`,
      KUBECONFIG: cluster.kubeconfigFile,
      // kubectl keeps a cache there, or else in the folder of the project.
      HOME: dirname(cluster.kubeconfigFile),
    },
  })
  t.equal(code, 0, stderr)
  const { stdout } = await kubectl('get', 'job', 'former', `--namespace=${NAMESPACE}`, '-o=json')
  const [container] = JSON.parse(stdout).spec.template.spec.containers
  t.same(container.args, [
    ...['clean-up', '--config', '/etc/pullpass/config/config.yaml'],
    '--cluster=staging',
  ])
  await kubectl('delete', 'job', 'former', `--namespace=${NAMESPACE}`)
  await plain(['uninstall', 'pullpass'])
})

for (const version of ['helm', 'helm3'] as const) {
  t.test(`${version} changes the certificate mode and changes it back`, async t => {
    const { plain, install } = await helmOn(t, version)
    const values = parse(await readFile(join(CHART, 'ci/host-network-values.yaml'), 'utf8'))
    const { certificate } = values
    const bundle = async () => {
      const { stdout } = await kubectl('get', 'mutatingwebhookconfiguration', 'pullpass', '-o=json')
      return JSON.parse(stdout).webhooks[0].clientConfig.caBundle
    }
    const given = Buffer.from(certificate.caBundle).toString('base64')
    await install('pullpass')
    const own = await trustCluster()

    const first = await install('pullpass', { certificate })
    if (version === 'helm') {
      t.not(first.code, 0)
      t.match(first.stderr, /conflict.*pullpass.*caBundle/s)
      t.equal(await bundle(), own, 'nothing has changed')
      const forced = await install('pullpass', { certificate }, NAMESPACE, ['--force-conflicts'])
      t.equal(forced.code, 0, forced.stderr)
    } else t.equal(first.code, 0, first.stderr)
    t.equal(await bundle(), given)
    const again = await install('pullpass', { certificate, webhook: { timeoutSeconds: 7 } })
    t.equal(again.code, 0, again.stderr)

    const back = await install('pullpass')
    t.equal(back.code, 0, back.stderr)
    t.equal(await bundle(), undefined, 'the chart owns it no more')
    t.equal(await trustCluster(), await bundle(), 'so that pullpass fills it without force')
    const toManager = await install('pullpass', { certificate: { mode: 'cert-manager' } })
    t.equal(toManager.code, 0, toManager.stderr)
    t.equal(await bundle(), own, 'until cert-manager writes its own')
    await plain(['uninstall', 'pullpass'])
  })
}

t.test('a second release fails with a message that names the conflict', async t => {
  const { plain, install } = await helmOn(t, 'helm')
  await install('pullpass')
  const second = (values: object) => install('second', values, 'other')
  const owner = 'the release pullpass in namespace pullpass'
  const otherName = { webhook: { configurationName: 'second' } }
  const otherHost = { ...otherName, registry: { host: 'registry.other.example.com' } }
  t.match((await second({})).stderr, `MutatingWebhookConfiguration pullpass belongs to ${owner}`)
  t.match((await second(otherName)).stderr, `The registry ${HOST} is served by ${owner} already`)
  const secretTaken = `The pull secret pullpass-registry is managed by ${owner} already`
  t.match((await second(otherHost)).stderr, secretTaken)
  const forAnotherEnvironment = { ...otherHost, pullSecret: { name: 'other-registry' } }
  const allowed = await second(forAnotherEnvironment)
  t.equal(allowed.code, 0, allowed.stderr)
  await plain(['uninstall', 'second', '--namespace', 'other'])
  await plain(['uninstall', 'pullpass'])
})

t.test('the ServiceAccount has the rights it needs, and no others', async t => {
  const { plain, install } = await helmOn(t, 'helm')
  await install('pullpass')
  const token = await cluster.token(NAMESPACE, 'pullpass')
  const agent = new Agent({ connect: { ca: cluster.ca } })
  t.teardown(() => agent.close())
  for (const [may, verb, path] of MAY) {
    const method = verb === 'APPLY' ? 'PATCH' : verb
    const response = await fetch(`${cluster.url}${addressOf(verb, path)}`, {
      method,
      dispatcher: agent,
      headers: { authorization: `Bearer ${token}`, 'content-type': contentType(verb) },
      ...(method === 'GET' ? {} : { body: JSON.stringify(bodyOf(verb, path)) }),
    })
    await response.arrayBuffer()
    t.equal(response.status !== 403, may, `${may ? 'may' : 'refused'} ${verb} ${path}`, {
      status: response.status,
    })
    if (may) t.not(response.status, 404, `${verb} ${path} is there`)
  }
  await plain(['uninstall', 'pullpass'])
})

t.test('the API server sends exactly the pods whose images belong to the registry', async t => {
  const { plain, install } = await helmOn(t, 'helm')
  // Nobody answers at this port, so with `Fail` a pod that is refused is one that was asked about.
  const url = 'https://127.0.0.1:1/mutate'
  const values = { webhook: { failurePolicy: 'Fail', url }, log: { level: 'debug' } }
  await install('pullpass', values)
  await kubectl('label', 'namespace', 'shop', 'pullpass.io/inject=enabled')
  await apply(['shop', 'other'].map(namespace => serviceAccount('default', namespace)))

  const asked = async (pod: Manifest) => {
    const { status, message } = await createDry(t, pod)
    const isRefused = status !== 201
    if (isRefused && !message?.includes('inject.pullpass.io')) throw new Error(message)
    return isRefused
  }
  // A configuration, and a changed label, take a moment to be honoured.
  for (let tries = 0; !(await asked(podWith({ image: `${HOST}/a` }))); tries++) {
    if (tries === 50) throw new Error('the webhook was never called')
  }
  for (const image of IMAGES) {
    const ours = isFromRegistry(image, HOST)
    t.equal(await asked(podWith({ image })), ours, `container ${image}`)
    t.equal(await asked(podWith({ initImage: image })), ours, `init container ${image}`)
    t.equal(await asked(podWith({ volumeImage: image })), ours, `image volume ${image}`)
  }
  const image = `${HOST}/shop/web`
  const mirror = { 'kubernetes.io/config.mirror': 'x' }
  t.notOk(await asked(podWith({ image, labels: { 'pullpass.io/inject': 'disabled' } })))
  t.ok(await asked(podWith({ image, labels: { 'pullpass.io/inject': 'enabled' } })))
  t.ok(await asked(podWith({ image, annotations: { other: 'x' } })))
  t.notOk(await asked(podWith({ image, namespace: 'other' })), 'namespace without the label')
  t.notOk(await asked(mirrorOf(podWith({ image, annotations: mirror }))), 'mirror pod')
  await plain(['uninstall', 'pullpass', '--no-hooks'])
})

async function helmOn(t: Test, version: HelmVersion) {
  const { helm, plain } = await createHelm(t, version, cluster.kubeconfigFile)
  const install = (
    release: string,
    values: object = {},
    namespace = NAMESPACE,
    more: string[] = [],
  ) => {
    const args = ['--install', release, CHART, '-n', namespace, '--values', MINIMAL, ...more]
    return helm(['upgrade', ...args], values)
  }
  return { plain, install }
}

/** Writes a caBundle as pullpass does: by server-side apply of this field only. */
async function trustCluster(): Promise<string> {
  const caBundle = Buffer.from(cluster.ca).toString('base64')
  const webhooks = [{ name: 'inject.pullpass.io', clientConfig: { caBundle } }]
  const manager = ['--field-manager=pullpass', '--validate=false']
  await apply([{ ...configuration('pullpass'), webhooks }], ...manager)
  return caBundle
}

async function kubectl(...args: string[]) {
  const ended = await cluster.kubectl(...args)
  if (ended.code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${ended.stderr}`)
  return ended
}

async function withFile<Result>(t: Test, text: string, use: (file: string) => Promise<Result>) {
  const file = join(t.testdir(), 'objects.yaml')
  await writeFile(file, text)
  return use(file)
}

async function apply(objects: Manifest[], ...args: string[]) {
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects })
  return withFile(t, list, file => kubectl('apply', '--server-side', ...args, '-f', file))
}

/** Asks the API server to create a pod in a dry run, as administrator. */
async function createDry(t: Test, pod: Manifest) {
  const agent = new Agent({ connect: { ca: cluster.ca } })
  t.teardown(() => agent.close())
  const token = cluster.kubeConfig().getCurrentUser()?.token
  const path = `/api/v1/namespaces/${pod.metadata.namespace}/pods?dryRun=All`
  const response = await fetch(cluster.url + path, {
    method: 'POST',
    dispatcher: agent,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(pod),
  })
  const { message } = (await response.json()) as { message?: string }
  return { status: response.status, message }
}

function contentType(verb: string): string {
  if (verb === 'APPLY') return 'application/apply-patch+yaml'
  return verb === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
}

function addressOf(verb: string, path: string): string {
  return verb === 'APPLY' ? `${path}?fieldManager=pullpass` : path
}

/** The smallest object that the API server accepts at this path. */
function bodyOf(verb: string, path: string): object {
  const [, resource = '', name = 'pullpass'] =
    /\/(secrets|leases|mutatingwebhookconfigurations|events)(?:\/([^/?]+))?/.exec(path) ?? []
  if (verb === 'DELETE' || verb === 'PATCH') return {}
  const metadata = { name }
  if (resource === 'secrets') return secretNamed(name)
  if (resource === 'leases') {
    return { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata }
  }
  if (resource === 'mutatingwebhookconfigurations') return configuration(name)
  if (resource !== 'events') return { metadata }
  return {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name, namespace: 'shop' },
    eventTime: '2026-01-01T00:00:00.000000Z',
    reportingController: 'pullpass.io/controller',
    reportingInstance: 'pullpass-0',
    action: 'Mint',
    reason: 'Minted',
    type: 'Normal',
    regarding: { apiVersion: 'v1', kind: 'Namespace', name: 'shop', namespace: 'shop' },
  }
}

/** As pullpass writes it: its CA, or a pull secret. */
function secretNamed(name: string) {
  const metadata = { name, labels: { 'pullpass.io/pull-secret': 'true' } }
  const secret = { apiVersion: 'v1', kind: 'Secret', metadata }
  if (name.endsWith('-ca')) {
    return { ...secret, type: 'kubernetes.io/tls', data: { 'tls.crt': '', 'tls.key': '' } }
  }
  const data = { '.dockerconfigjson': Buffer.from('{"auths":{}}').toString('base64') }
  return { ...secret, type: 'kubernetes.io/dockerconfigjson', data }
}

function configuration(name: string) {
  return {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name },
  }
}

function namespace(name: string) {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name } }
}

function serviceAccount(name: string, namespace = NAMESPACE) {
  return { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } }
}

function podWith(options: {
  image?: string
  initImage?: string
  volumeImage?: string
  labels?: object
  annotations?: object
  namespace?: string
}): Manifest {
  const { image = 'nginx', initImage, volumeImage, labels, annotations } = options
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'pod', namespace: options.namespace ?? 'shop', labels, annotations },
    spec: {
      automountServiceAccountToken: false,
      containers: [{ name: 'main', image }],
      initContainers: initImage && [{ name: 'init', image: initImage }],
      volumes: volumeImage && [{ name: 'volume', image: { reference: volumeImage } }],
    },
  }
}

/** A mirror pod has no ServiceAccount, and a node. */
function mirrorOf(pod: Manifest): Manifest {
  return { ...pod, spec: { ...pod.spec, nodeName: 'node', enableServiceLinks: false } }
}

function customKind(group: string, kind: string, plural: string) {
  const schema = {
    openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
  }
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: { kind, plural, singular: kind.toLowerCase() },
      versions: ['v1'].map(name => ({ name, served: true, storage: true, schema })),
    },
  }
}

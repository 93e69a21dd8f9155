export type Verdict = 'allowed' | 'refused'

/** Attempts with the token of the ServiceAccount; last: the expected status without and with the policy. */
export type Way = [
  what: string,
  verb: string,
  path: string,
  body: object,
  expected: [Verdict, Verdict],
]

export const secretName = 'pullpass-registry'
export const policy = 'pullpass.pullpass'
export const label = { 'pullpass.io/pull-secret': 'true' }
export const core = (namespace: string, rest: string) => `/api/v1/namespaces/${namespace}/${rest}`
const admission = '/apis/admissionregistration.k8s.io/v1'
const rbac = '/apis/rbac.authorization.k8s.io/v1'
const leases = (namespace: string) =>
  `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/pullpass`
export const pull = { '.dockerconfigjson': Buffer.from('{"auths":{}}').toString('base64') }
const pair = { 'tls.crt': '', 'tls.key': '' }

/** A Secret as it is applied; its name comes from its path. */
export function secret(type: string, data: object, metadata: object = { labels: label }) {
  return { apiVersion: 'v1', kind: 'Secret', metadata, type, data }
}

export const dockerconfig = 'kubernetes.io/dockerconfigjson'
const tokenOf = { labels: label, annotations: { 'kubernetes.io/service-account.name': 'default' } }
export const accountToken = secret('kubernetes.io/service-account-token', {}, tokenOf)
const ownConfiguration = `${admission}/mutatingwebhookconfigurations/pullpass`
const elsewhere = { clientConfig: { url: 'https://intruder.example.com/' } }
const always: [Verdict, Verdict] = ['allowed', 'allowed']
const never: [Verdict, Verdict] = ['refused', 'refused']
const byPolicy: [Verdict, Verdict] = ['allowed', 'refused']

/** Each is a dry run, so that it does not affect the next one. Last: without and with the policy. */
export const ways: Way[] = [
  [
    'its own pull Secret',
    'APPLY',
    core('shop', `secrets/${secretName}`),
    secret(dockerconfig, pull),
    always,
  ],
  [
    'its own CA',
    'APPLY',
    core('pullpass', 'secrets/pullpass-ca'),
    secret('kubernetes.io/tls', pair),
    always,
  ],
  [
    'a token of a ServiceAccount in kube-system',
    'APPLY',
    core('kube-system', `secrets/${secretName}`),
    accountToken,
    byPolicy,
  ],
  [
    'a token of a ServiceAccount, named as the CA',
    'APPLY',
    core('pullpass', 'secrets/pullpass-ca'),
    accountToken,
    byPolicy,
  ],
  [
    'a bootstrap token',
    'APPLY',
    core('kube-system', `secrets/${secretName}`),
    secret('bootstrap.kubernetes.io/token', {}),
    byPolicy,
  ],
  [
    'an Opaque Secret',
    'APPLY',
    core('shop', `secrets/${secretName}`),
    secret('Opaque', pull),
    byPolicy,
  ],
  [
    'a certificate elsewhere',
    'APPLY',
    core('shop', `secrets/${secretName}`),
    secret('kubernetes.io/tls', pair),
    byPolicy,
  ],
  [
    'a second data key',
    'APPLY',
    core('shop', `secrets/${secretName}`),
    secret(dockerconfig, { ...pull, more: '' }),
    byPolicy,
  ],
  [
    'a pull Secret without the label',
    'APPLY',
    core('shop', `secrets/${secretName}`),
    secret(dockerconfig, pull, {}),
    byPolicy,
  ],
  [
    'a Secret of another name',
    'APPLY',
    core('shop', 'secrets/another'),
    secret(dockerconfig, pull),
    never,
  ],
  [
    'the CA in another namespace',
    'APPLY',
    core('shop', 'secrets/pullpass-ca'),
    secret('kubernetes.io/tls', pair),
    never,
  ],
  [
    'a new Secret by POST',
    'POST',
    core('shop', 'secrets'),
    secret(dockerconfig, pull, { name: secretName, labels: label }),
    never,
  ],
  ['read every Secret', 'GET', '/api/v1/secrets', {}, never],
  ['watch every Secret', 'GET', '/api/v1/secrets?watch=true&timeoutSeconds=1', {}, never],
  ['read another Secret', 'GET', core('pullpass', 'secrets/bluemix'), {}, never],
  [
    'its own configuration with another URL',
    'MERGE',
    ownConfiguration,
    {
      webhooks: [
        {
          name: 'inject.pullpass.io',
          admissionReviewVersions: ['v1'],
          sideEffects: 'None',
          ...elsewhere,
        },
      ],
    },
    always,
  ],
  ['delete its own configuration', 'DELETE', ownConfiguration, {}, never],
  [
    'another webhook configuration',
    'APPLY',
    `${admission}/mutatingwebhookconfigurations/another`,
    { apiVersion: 'admissionregistration.k8s.io/v1', kind: 'MutatingWebhookConfiguration' },
    never,
  ],
  [
    'a validating webhook configuration',
    'POST',
    `${admission}/validatingwebhookconfigurations`,
    { metadata: { name: 'another' } },
    never,
  ],
  ['delete the policy', 'DELETE', `${admission}/validatingadmissionpolicies/${policy}`, {}, never],
  [
    'change the policy',
    'MERGE',
    `${admission}/validatingadmissionpolicies/${policy}`,
    { spec: { validations: [] } },
    never,
  ],
  [
    'delete the binding of the policy',
    'DELETE',
    `${admission}/validatingadmissionpolicybindings/${policy}`,
    {},
    never,
  ],
  [
    'a token by TokenRequest',
    'POST',
    core('kube-system', 'serviceaccounts/default/token'),
    { spec: { audiences: [] } },
    never,
  ],
  ['a pod', 'POST', core('shop', 'pods'), { metadata: { name: 'pod' } }, never],
  ['a command in a pod', 'POST', core('shop', 'pods/any/exec?command=sh'), {}, never],
  [
    'a role that may everything',
    'POST',
    `${rbac}/clusterroles`,
    { metadata: { name: 'all' }, rules: [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }] },
    never,
  ],
  ['its own role widened', 'MERGE', `${rbac}/clusterroles/pullpass:pullpass`, { rules: [] }, never],
  [
    'a binding to cluster-admin',
    'POST',
    `${rbac}/clusterrolebindings`,
    {
      metadata: { name: 'all' },
      roleRef: {
        apiGroup: 'rbac.authorization.k8s.io',
        kind: 'ClusterRole',
        name: 'cluster-admin',
      },
    },
    never,
  ],
  ['impersonation of an administrator', 'IMPERSONATE', '/api/v1/secrets', {}, never],
  [
    'a Lease of the scheduler',
    'MERGE',
    '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler',
    { spec: { holderIdentity: 'intruder' } },
    never,
  ],
  [
    'its Lease in another namespace',
    'APPLY',
    leases('shop'),
    { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' },
    never,
  ],
  ['read nodes', 'GET', '/api/v1/nodes', {}, never],
  ['read ConfigMaps', 'GET', core('kube-system', 'configmaps'), {}, never],
  [
    'change an event',
    'MERGE',
    '/apis/events.k8s.io/v1/namespaces/shop/events/any',
    { note: 'forged' },
    never,
  ],
  [
    'label a namespace',
    'MERGE',
    '/api/v1/namespaces/shop',
    { metadata: { labels: { 'pullpass.io/inject': 'enabled' } } },
    never,
  ],
]

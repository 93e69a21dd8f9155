import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { chartReadme } from '../../charts/readme.ts'
import { type Config, readConfig } from '../../src/config/config.ts'
import { configSchema } from '../../src/config/schema.ts'
import { CHART, createHelm, find, type Manifest, MINIMAL } from './helm.ts'

const CI_VALUES = readdirSync(join(CHART, 'ci')).map(file => join(CHART, 'ci', file))
const KUBERNETES = ['1.28.0', '1.30.4-gke.100', '1.34.4', '1.36.3', '1.37.2']
const CERTIFICATE = parse(readFileSync(join(CHART, 'ci/host-network-values.yaml'), 'utf8'))
  .certificate.caBundle

/**
 * Values that the schema refuses: `[values, the reported name, the reported words]`. The words for a text are
 * the `const` beside its pattern in values.schema.json.
 */
const REFUSED_BY_SCHEMA: [object, string, string][] = [
  [{ nosuch: 1 }, "''", "additional properties 'nosuch' not allowed"],
  [
    { controller: { concurency: 1 } },
    '/controller',
    "additional properties 'concurency' not allowed",
  ],
  [{ domain: 'https://dedicated.example.com' }, '/domain', 'a domain name like'],
  [{ domain: 'Dedicated.example.com' }, '/domain', 'a domain name like'],
  [{ domain: 5 }, '/domain', 'got number, want string'],
  [{ registry: { host: 'https://registry.example.com' } }, '/registry/host', 'a host or host:port'],
  [{ registry: { host: 'registry.example.com/team' } }, '/registry/host', 'a host or host:port'],
  [{ registry: { host: "registry.example.com'" } }, '/registry/host', 'a host or host:port'],
  [{ registry: { host: 'registry.example.com:65536' } }, '/registry/host', 'a host or host:port'],
  [{ registry: { host: 'registry' } }, '/registry/host', 'a host or host:port'],
  [{ registry: { url: 'http://registry.example.com' } }, '/registry/url', 'a URL like https://'],
  [{ bluemix: { api: 'https://u:p@api.example.com' } }, '/bluemix/api', 'without user and query'],
  [{ bluemix: { login: 'ldap' } }, '/bluemix/login', "one of 'uaa', 'iam'"],
  [{ bluemix: { account: 'acme' } }, '/bluemix/account', '32 hexadecimal digits'],
  [{ bluemix: { organization: ' acme' } }, '/bluemix/organization', 'the name or GUID'],
  [{ bluemix: { timeoutMs: 10 } }, '/bluemix/timeoutMs', 'got 10, want 100'],
  [
    { bluemix: { namespaceOrganizations: { Shop: 'acme' } } },
    '/bluemix/namespaceOrganizations',
    "additional properties 'Shop' not allowed",
  ],
  [
    { bluemix: { selectableOrganizations: [{ organization: 'acme', namespaces: ['*-data'] }] } },
    '/bluemix/selectableOrganizations/0/namespaces/0',
    'a namespace, or a prefix followed by *',
  ],
  [{ credentials: { apiKey: 'key\n' } }, '/credentials/apiKey', 'text without a line break'],
  [{ credentials: { existingSecret: 'My_Secret' } }, '/credentials/existingSecret', 'a name of'],
  [
    { image: { repository: 'registry.example.com/p:1' } },
    '/image/repository',
    'without tag and digest',
  ],
  [{ image: { digest: 'sha256:12' } }, '/image/digest', 'sha256: and 64 hexadecimal digits'],
  [{ image: { pullPolicy: 'always' } }, '/image/pullPolicy', "'IfNotPresent', 'Always', 'Never'"],
  [{ environmentCa: { pem: '-----BEGIN' } }, '/environmentCa/pem', 'PEM certificates'],
  [
    {
      environmentCa: { pem: '-----BEGIN EC PRIVATE KEY-----\nMA==\n-----END EC PRIVATE KEY-----' },
    },
    '/environmentCa/pem',
    'PEM certificates only',
  ],
  [{ proxy: { https: 'http://u:p@proxy:3128' } }, '/proxy/https', 'without user and password'],
  [{ proxy: { noProxy: 'a, b' } }, '/proxy/noProxy', 'without spaces'],
  [{ pullSecret: { name: 'Pull' } }, '/pullSecret/name', 'a name of'],
  [{ pullSecret: { name: '' } }, '/pullSecret/name', 'a name of'],
  [{ pullSecret: { email: 'nobody' } }, '/pullSecret/email', 'an e-mail address'],
  [{ admission: { waitMs: 10_001 } }, '/admission/waitMs', 'got 10,001, want 10,000'],
  [{ webhook: { failurePolicy: 'fail' } }, '/webhook/failurePolicy', "'Ignore', 'Fail'"],
  [{ webhook: { timeoutSeconds: 31 } }, '/webhook/timeoutSeconds', 'got 31, want 30'],
  [{ webhook: { timeoutSeconds: '5' } }, '/webhook/timeoutSeconds', 'got string, want integer'],
  [{ webhook: { port: 443 } }, '/webhook/port', 'got 443, want 1,024'],
  [{ webhook: { url: 'https://p.example.com/' } }, '/webhook/url', 'https://host:port/mutate'],
  [{ certificate: { mode: 'files' } }, '/certificate/mode', "'self-managed', 'cert-manager'"],
  [{ certificate: { issuerRef: { kind: 'Issuer' } } }, '/certificate/issuerRef', "'name' required"],
  [
    { controller: { rotateAfterSeconds: 1.5 } },
    '/controller/rotateAfterSeconds',
    'want null or integer',
  ],
  [{ replicas: 0 }, '/replicas', 'got 0, want 1'],
  [{ resources: { limits: { memory: '256MB' } } }, '/resources/limits/memory', 'memory like 256Mi'],
  [{ secretsPolicy: 'yes' }, '/secretsPolicy', "'auto', 'on', 'off'"],
  [
    { podLabels: { 'app.kubernetes.io/name': 'x' } },
    '/podLabels/app.kubernetes.io~1name',
    'are set by the chart',
  ],
  [{ networkPolicy: { webhookFrom: ['10.0.0.1'] } }, '/networkPolicy/webhookFrom/0', 'a CIDR'],
  [{ monitor: { kind: 'Probe' } }, '/monitor/kind', "'ServiceMonitor', 'PodMonitor'"],
  [{ monitor: { interval: '30' } }, '/monitor/interval', 'a duration like 30s'],
  [{ log: { level: 'verbose' } }, '/log/level', "'info'"],
]

/** Values that are valid alone and invalid together: `[values added to the minimal ones, reported]`. */
const REFUSED_TOGETHER: [object, string][] = [
  [{ domain: '' }, 'domain is required, unless bluemix.api and registry.host are both set.'],
  [
    { domain: '', bluemix: { api: 'https://api.example.com' }, registry: {} },
    'domain is required, unless bluemix.api and registry.host are both set.',
  ],
  [{ bluemix: { organization: '' } }, 'bluemix.organization is required'],
  [{ image: { repository: '' } }, 'image.repository is required'],
  [{ bluemix: { login: 'iam' } }, 'bluemix.login is iam, so bluemix.iam is required'],
  [{ bluemix: { iam: 'https://iam.example.com' } }, 'bluemix.iam is set, but bluemix.login is uaa'],
  [{ credentials: { existingSecret: '' } }, 'credentials are required'],
  [{ credentials: { apiKey: 'k' } }, 'set only one of credentials.'],
  [{ credentials: { username: 'u' } }, 'set only one of credentials.'],
  [
    { credentials: { existingSecret: '', username: 'u' } },
    'credentials.username and credentials.password must both be set',
  ],
  [
    { environmentCa: { configMap: 'a', secret: 'b' } },
    'set only one of environmentCa.pem, environmentCa.configMap and environmentCa.secret',
  ],
  [
    { certificate: { mode: 'existing-secret', caBundle: CERTIFICATE } },
    'so certificate.existingSecret is required',
  ],
  [
    { certificate: { mode: 'existing-secret', existingSecret: 'c' } },
    'so certificate.caBundle is required',
  ],
  [
    { certificate: { existingSecret: 'c' } },
    'certificate.existingSecret is only for certificate.mode existing-secret',
  ],
  [{ certificate: { caBundle: CERTIFICATE } }, 'in mode self-managed, it is set automatically'],
  [
    { certificate: { mode: 'cert-manager', caBundle: CERTIFICATE } },
    'in mode cert-manager, it is set automatically',
  ],
  [
    { certificate: { issuerRef: { name: 'x' } } },
    'certificate.issuerRef is only for certificate.mode cert-manager',
  ],
  [
    { certificate: { leafSeconds: 100, caSeconds: 399 } },
    'certificate.caSeconds (399) must be at least four times certificate.leafSeconds (100)',
  ],
  [
    { admission: { waitMs: 4500 } },
    'admission.waitMs (4500) must be at least a second shorter than webhook.timeoutSeconds (5)',
  ],
  [
    { controller: { rotateAfterSeconds: 3600 } },
    'controller.rotateGraceSeconds (3600) must be shorter than controller.rotateAfterSeconds (3600)',
  ],
  ...['64Mi', '127Mi', '134M', '134217727'].map((memory): [object, string] => [
    { resources: { limits: { memory } } },
    `resources.limits.memory (${memory}) is below 128Mi`,
  ]),
  [
    { image: { repository: 'registry.dedicated.example.com/tools/pullpass' }, registry: {} },
    'the registry that pullpass serves, so imagePullSecrets is required',
  ],
  ...['docker.io', 'index.docker.io', 'registry-1.docker.io:443'].map((host): [object, string] => [
    { registry: { host } },
    `registry.host is ${host}, but Docker Hub is not supported`,
  ]),
  [
    { networkPolicy: { enabled: true }, monitor: { enabled: true } },
    'monitor.enabled needs networkPolicy.metricsFrom',
  ],
  [{ webhook: { port: 8081 } }, 'webhook.port and operations.port are both 8081'],
  [
    { hostNetwork: true, networkPolicy: { enabled: true } },
    'networkPolicy.enabled has no effect with hostNetwork',
  ],
]

t.test('helm lint --strict accepts all example values', async t => {
  for (const version of ['helm', 'helm3'] as const) {
    const { plain } = await createHelm(t, version)
    for (const values of CI_VALUES) {
      const ended = await plain(['lint', '--strict', CHART, '--values', values])
      t.equal(ended.code, 0, `${version} ${values}: ${ended.stdout}${ended.stderr}`)
    }
  }
})

t.test('an invalid value is refused with its name and the expected value', async t => {
  const { template } = await createHelm(t, 'helm')
  for (const rows of together(REFUSED_BY_SCHEMA)) {
    const { code, stderr } = await template(['--values', MINIMAL], valuesOf(rows))
    t.not(code, 0)
    const lines = stderr.split('\n')
    for (const [values, name, words] of rows) {
      const shown = lines.some(line => line.includes(name) && line.includes(words))
      t.ok(shown, `${JSON.stringify(values)}: ${name} ${words}`, { stderr })
    }
  }
})

t.test('Helm 3 reports an invalid value in the same words', async t => {
  const { template } = await createHelm(t, 'helm3')
  const { stderr } = await template(['--values', MINIMAL], { registry: { host: 'a/b' } })
  t.match(stderr, "at '/registry/host': value must be 'a host or host:port")
})

t.test('values that contradict each other are refused with one sentence', async t => {
  const { template } = await createHelm(t, 'helm')
  for (const rows of together(REFUSED_TOGETHER)) {
    const { code, stderr } = await template(['--values', MINIMAL], valuesOf(rows))
    const shown = stderr.split('\n').filter(line => line.startsWith('  - '))
    t.not(code, 0)
    t.equal(shown.length, rows.length, stderr)
    for (const [values, sentence] of rows) {
      const found = shown.filter(line => line.includes(sentence))
      t.equal(found.length, 1, `${JSON.stringify(values)}: ${sentence}`, { stderr })
    }
  }
})

t.test('without any values, all required values are reported together', async t => {
  const { template } = await createHelm(t, 'helm')
  const { stderr } = await template([])
  t.equal(stderr.split('\n').filter(line => line.startsWith('  - ')).length, 4, stderr)
})

t.test('the chart refuses Kubernetes before 1.28', async t => {
  const { template } = await createHelm(t, 'helm')
  const { stderr } = await template(['--values', MINIMAL, '--kube-version', '1.27.16'])
  t.match(stderr, 'requires kubeVersion: >=1.28.0-0')
})

t.test('the program reads the settings of the chart, from both Helm versions', async t => {
  for (const version of ['helm', 'helm3'] as const) {
    const { render } = await createHelm(t, version)
    const renders = [
      ...CI_VALUES.map(values => ['--values', values]),
      ...KUBERNETES.map(kubernetes => ['--values', MINIMAL, '--kube-version', kubernetes]),
    ]
    for (const args of renders) {
      const manifests = await render(args)
      t.doesNotThrow(() => settingsOf(manifests), `${version} ${args.join(' ')}`)
    }
  }
})

t.test('the values of the chart appear in the settings', async t => {
  const { render } = await createHelm(t, 'helm')
  const everything = join(CHART, 'ci/everything-values.yaml')
  const values = parse(readFileSync(everything, 'utf8'))
  const config = settingsOf(await render(['--values', everything]))
  t.match(config.bluemix, {
    ...values.bluemix,
    caFile: '/etc/pullpass/environment-ca/ca.crt',
    credentialsDirectory: '/etc/pullpass/credentials',
  })
  t.match(config, {
    registry: values.registry,
    pullSecret: values.pullSecret,
    admission: { port: 10250, waitMs: 2000 },
    controller: values.controller,
    certificate: {
      mode: 'self-managed',
      names: ['pullpass.pullpass.svc'],
      secretName: 'pullpass-ca',
      webhookConfiguration: 'zz-pullpass',
      leafSeconds: 60,
      caSeconds: 600,
    },
  })
})

t.test('the values of the chart have the limits and defaults of the settings', async t => {
  const values = parse(readFileSync(join(CHART, 'values.yaml'), 'utf8'))
  const schema = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8'))
  const shared = settingsWithValues(schema)
  t.ok(shared.length > 20)
  for (const { section, name, setting, value } of shared) {
    const { minimum, maximum, default: initial } = setting
    t.match({ minimum: value.minimum, maximum: value.maximum }, { minimum, maximum }, name)
    if (initial !== undefined) t.same(values[section][name], initial, `${section}.${name}`)
  }
})

t.test('a changed setting replaces the pods, a changed credential does not', async t => {
  const { render } = await createHelm(t, 'helm')
  const checksum = async (values: object) =>
    find(await render(['--values', MINIMAL], values), 'Deployment').spec.template.metadata
      .annotations
  const before = await checksum({ credentials: { existingSecret: '', apiKey: 'a' } })
  t.same(await checksum({ credentials: { existingSecret: '', apiKey: 'b' } }), before)
  t.notSame(await checksum({ log: { level: 'debug' } }), before)
  t.notSame(await checksum({ environmentCa: { pem: CERTIFICATE } }), before)
})

t.test('the heap limit is three quarters of the memory limit', async t => {
  const { render } = await createHelm(t, 'helm')
  for (const [memory, heap] of [
    ['256Mi', '--max-old-space-size=192'],
    ['2Gi', '--max-old-space-size=1536'],
    ['1.5Gi', '--max-old-space-size=1152'],
    ['512M', '--max-old-space-size=366'],
    ['1G', '--max-old-space-size=715'],
    [268_435_456, '--max-old-space-size=192'],
    ['134217728', '--max-old-space-size=96'],
    [null, undefined],
  ]) {
    const manifests = await render(['--values', MINIMAL], { resources: { limits: { memory } } })
    t.equal(environmentOf(manifests).NODE_OPTIONS, heap)
  }
})

t.test('the termination grace covers the drain time and the longest request', async t => {
  const { render } = await createHelm(t, 'helm')
  const values = { shutdown: { drainMs: 7500 }, webhook: { timeoutSeconds: 12 } }
  const { spec } = find(await render(['--values', MINIMAL], values), 'Deployment').spec.template
  t.equal(spec.terminationGracePeriodSeconds, 8 + 12 + 10)
})

t.test('the webhook configuration excludes system and release namespaces', async t => {
  const { render } = await createHelm(t, 'helm')
  const manifests = await render(['--values', MINIMAL, '--namespace', 'tools'])
  const [webhook] = find(manifests, 'MutatingWebhookConfiguration').webhooks
  t.same(webhook.namespaceSelector.matchExpressions, [
    { key: 'pullpass.io/inject', operator: 'In', values: ['enabled', 'true'] },
    {
      key: 'kubernetes.io/metadata.name',
      operator: 'NotIn',
      values: ['kube-system', 'kube-node-lease', 'tools'],
    },
  ])
  t.same(webhook.objectSelector.matchExpressions, [
    { key: 'pullpass.io/inject', operator: 'NotIn', values: ['disabled', 'false'] },
  ])
  t.match(webhook, { failurePolicy: 'Ignore', sideEffects: 'NoneOnDryRun' })
})

t.test('the chart renders the caBundle only if nothing else maintains it', async t => {
  const { render } = await createHelm(t, 'helm')
  const bundle = async (file: string) =>
    find(await render(['--values', join(CHART, 'ci', file)]), 'MutatingWebhookConfiguration')
      .webhooks[0].clientConfig.caBundle
  t.equal(await bundle('minimal-values.yaml'), undefined)
  t.equal(await bundle('cert-manager-values.yaml'), undefined)
  t.equal(Buffer.from(await bundle('host-network-values.yaml'), 'base64').toString(), CERTIFICATE)
})

t.test('with webhook.url, the certificate also contains its host', async t => {
  const { render } = await createHelm(t, 'helm')
  const names = async (url: string) =>
    settingsOf(await render(['--values', MINIMAL], { webhook: { url } })).certificate.names
  const service = 'pullpass.pullpass.svc'
  t.same(await names('https://p.example.com:8443/mutate'), [service, 'p.example.com'])
  t.same(await names('https://10.1.2.3/mutate'), [service, '10.1.2.3'])
})

t.test('cert-manager signs for the Service and for the host of webhook.url', async t => {
  const { render } = await createHelm(t, 'helm')
  const certificate = async (url: string, issuerRef = {}) =>
    find(
      await render(['--values', join(CHART, 'ci/cert-manager-values.yaml')], {
        webhook: { url },
        certificate: { issuerRef },
      }),
      'Certificate',
      'pullpass',
    ).spec
  const service = 'pullpass.pullpass.svc'
  t.match(await certificate(''), { dnsNames: [service], ipAddresses: undefined })
  const named = await certificate('https://p.example.com/mutate')
  t.match(named, { dnsNames: [service, 'p.example.com'], ipAddresses: undefined })
  const numbered = await certificate('https://10.1.2.3/mutate')
  t.match(numbered, { dnsNames: [service], ipAddresses: ['10.1.2.3'] })
  const issuerRef = { name: 'company', kind: 'ClusterIssuer' }
  t.match(await certificate('', issuerRef), { issuerRef })
})

t.test('only failurePolicy Fail has a hook that removes the configuration', async t => {
  const { render } = await createHelm(t, 'helm')
  const hooks = async (failurePolicy: string) =>
    (await render(['--values', MINIMAL], { webhook: { failurePolicy } })).filter(
      one => one.metadata.annotations?.['helm.sh/hook'] === 'pre-delete',
    )
  t.same(await hooks('Ignore'), [])
  const removal = await hooks('Fail')
  t.same(find(removal, 'ClusterRole').rules, [
    {
      apiGroups: ['admissionregistration.k8s.io'],
      resources: ['mutatingwebhookconfigurations'],
      resourceNames: ['pullpass'],
      verbs: ['delete'],
    },
  ])
  t.same(find(removal, 'Job').spec.template.spec.containers[0].args, [
    'remove-webhook',
    '--name',
    'pullpass',
  ])
})

t.test('the Helm test uses an image of the registry and the name of the Secret', async t => {
  const { render } = await createHelm(t, 'helm')
  const values = { pullSecret: { name: 'another' } }
  const pod = find(await render(['--values', MINIMAL], values), 'Pod')
  t.same(pod.spec.containers[0].args, [
    'selftest',
    '--namespace',
    'pullpass-selftest',
    '--image',
    'registry.dedicated.example.com/pullpass/selftest:latest',
    '--secret',
    'another',
  ])
})

t.test('containers run without root and with a read-only file system', async t => {
  const { render } = await createHelm(t, 'helm')
  for (const values of CI_VALUES) {
    const pods = (await render(['--values', values]))
      .map(one => one.spec?.jobTemplate ?? one)
      .map(one => (one.kind === 'Pod' ? one.spec : one.spec?.template?.spec))
      .filter(Boolean)
    for (const pod of pods) {
      t.match(pod, { enableServiceLinks: false, securityContext: { runAsUser: 65532 } })
      t.equal(pod.containers[0].securityContext.readOnlyRootFilesystem, true)
      t.equal(pod.containers[0].resources.limits?.cpu, undefined)
    }
  }
})

t.test(
  'clean-up is a suspended CronJob with the account, settings and keys of the Deployment',
  async t => {
    const { render } = await createHelm(t, 'helm')
    for (const file of CI_VALUES) {
      const manifests = await render(['--values', file])
      const { spec: cron } = find(manifests, 'CronJob')
      t.match(cron, { suspend: true, jobTemplate: { spec: { backoffLimit: 0 } } })
      const { metadata, spec } = cron.jobTemplate.spec.template
      const served = find(manifests, 'Deployment').spec.template.spec
      t.equal(spec.serviceAccountName, served.serviceAccountName)
      t.same(spec.securityContext, served.securityContext)
      const withoutCertificate = (named: { name: string }[]) =>
        named.filter(({ name }) => name !== 'certificate')
      t.same(spec.volumes, withoutCertificate(served.volumes))
      const [own] = spec.containers
      const [serving] = served.containers
      t.same(own.args, ['clean-up', '--config', serving.args[2]])
      t.same(own.volumeMounts, withoutCertificate(serving.volumeMounts))
      for (const key of ['image', 'env', 'resources', 'securityContext']) {
        t.same(own[key], serving[key], key)
      }
      const { selector } = find(manifests, 'Service').spec
      t.not(metadata.labels['app.kubernetes.io/name'], selector['app.kubernetes.io/name'])
    }
  },
)

t.test('the name of the CronJob has at most 52 characters', async t => {
  const { plain } = await createHelm(t, 'helm')
  const { stdout } = await plain(['template', 'a'.repeat(53), CHART, '--values', MINIMAL])
  const [, name = ''] = /kind: CronJob\nmetadata:\n {2}name: (\S+)/.exec(stdout) ?? []
  t.match(name, /clean-up$/)
  t.ok(name.length <= 52, name)
})

t.test('secretsPolicy creates the policy, by default from Kubernetes 1.30 on', async t => {
  const { render } = await createHelm(t, 'helm')
  const made = async (kubernetes: string, values: object) =>
    (await render(['--values', MINIMAL, '--kube-version', kubernetes], values)).some(
      one => one.kind === 'ValidatingAdmissionPolicy',
    )
  t.equal(await made('1.29.9', {}), false)
  t.equal(await made('1.30.0-gke.1', {}), true)
  t.equal(await made('1.37.2', { secretsPolicy: null }), true, 'values of an older chart')
  for (const secretsPolicy of ['on', true]) t.equal(await made('1.29.9', { secretsPolicy }), true)
  for (const secretsPolicy of ['off', false])
    t.equal(await made('1.37.2', { secretsPolicy }), false)
})

t.test('the network policy allows the ports of URLs, but no operations port', async t => {
  const { render } = await createHelm(t, 'helm')
  const spec = async (values: object) => {
    const manifests = await render(['--values', MINIMAL], {
      networkPolicy: { enabled: true, apiServerPorts: [6443] },
      ...values,
    })
    return find(manifests, 'NetworkPolicy').spec
  }
  const ports = async (values: object) =>
    (await spec(values)).egress[1].ports.map((one: { port: number }) => one.port)
  t.same(await ports({}), [6443, 443])
  t.same(await ports({ proxy: { https: 'http://proxy.example.com:3128' } }), [6443, 443, 3128])
  t.same(await ports({ proxy: { https: 'http://proxy.example.com' } }), [6443, 443, 80])
  t.same(await ports({ registry: { host: 'r.example.com:5000' } }), [6443, 443, 5000])
  const bluemix = {
    api: 'https://a.example.com:8443',
    login: 'iam',
    iam: 'https://i.example.com:9443',
  }
  t.same(await ports({ bluemix }), [6443, 8443, 443, 9443])
  t.same((await spec({})).ingress, [{ ports: [{ port: 'webhook' }] }])
  const { podSelector } = await spec({})
  t.same(podSelector.matchExpressions[0].values, ['pullpass', 'pullpass-clean-up'])
})

t.test('the settings contain the names of the certificate in every certificate mode', async t => {
  const { render } = await createHelm(t, 'helm')
  const names = async (file: string) =>
    settingsOf(await render(['--values', join(CHART, 'ci', file)])).certificate.names
  t.same(await names('cert-manager-values.yaml'), ['pullpass.pullpass.svc'])
  t.same(await names('host-network-values.yaml'), ['pullpass.example.com'])
})

t.test('optional objects are created only if they are enabled', async t => {
  const { render } = await createHelm(t, 'helm')
  const kinds = (await render(['--values', MINIMAL]))
    .filter(one => one.metadata.annotations?.['helm.sh/hook'] === undefined)
    .map(one => one.kind)
  t.same(kinds.sort(), [
    'ClusterRole',
    'ClusterRoleBinding',
    'ConfigMap',
    'CronJob',
    'Deployment',
    'MutatingWebhookConfiguration',
    'Role',
    'RoleBinding',
    'Service',
    'ServiceAccount',
    'ValidatingAdmissionPolicy',
    'ValidatingAdmissionPolicyBinding',
  ])
})

t.test('alerts and dashboard use only metrics that exist', async t => {
  const source = resolve(import.meta.dirname, '../../src')
  const program = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter(file => file.endsWith('.ts'))
    .map(file => readFileSync(join(source, file), 'utf8'))
    .join('')
  for (const file of ['monitoring/alerts.yaml', 'monitoring/dashboard.json']) {
    const names = readFileSync(join(CHART, file), 'utf8').match(/\bpullpass_\w+/g) ?? []
    t.ok(names.length > 0)
    for (const name of new Set(names.map(one => one.replace(/_bucket$/, '')))) {
      t.ok(program.includes(`'${name}'`), `${name} of ${file}`)
    }
  }
})

t.test('the README of the chart matches its values', async t => {
  const readme = readFileSync(join(CHART, 'README.md'), 'utf8')
  t.equal(readme, await chartReadme(), 'as `node charts/readme.ts` makes it')
})

/** Rows whose values are in different sections, for one run of Helm each: it reports all errors. */
function together<Row extends [values: object, ...rest: unknown[]]>(rows: Row[]): Row[][] {
  const groups: Row[][] = []
  for (const row of rows) {
    const sections = Object.keys(row[0])
    const isFree = (group: Row[]) => !sections.some(section => section in valuesOf(group))
    const group = groups.find(isFree)
    if (group === undefined) groups.push([row])
    else group.push(row)
  }
  return groups
}

function valuesOf(rows: [values: object, ...rest: unknown[]][]): object {
  return Object.assign({}, ...rows.map(([values]) => values))
}

/** The settings as the program reads them from the rendered ConfigMap. */
function settingsOf(manifests: Manifest[]): Config {
  const { data } = find(manifests, 'ConfigMap', 'pullpass')
  return readConfig(data['config.yaml'], {})
}

function environmentOf(manifests: Manifest[]): Record<string, string> {
  const [container] = find(manifests, 'Deployment').spec.template.spec.containers
  return Object.fromEntries(
    container.env.map((one: { name: string; value: string }) => [one.name, one.value]),
  )
}

/** The settings that are values of the same name, both as JSON Schema; ports are bounded by the pod. */
function settingsWithValues(schema: Manifest) {
  return Object.entries<Manifest>(configSchema.properties)
    .flatMap(([section, { properties = {} }]) =>
      Object.entries<Manifest>(properties).map(([name, setting]) => {
        const value = schema.properties[section]?.properties?.[name]
        return { section, name, setting, value }
      }),
    )
    .filter(({ name, value }) => value !== undefined && name !== 'port')
}

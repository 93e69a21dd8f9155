import t from 'tap'
import { ConfigError, readConfig, settingsTable } from '../src/config/config.ts'
import { settings } from '../src/config/settings.ts'

const SMALLEST = `
domain: dedicated.example.com
bluemix: {organization: acme}
certificate: {names: [pullpass.pullpass.svc]}
`

function problemsOf(yaml: string, environment: Record<string, string> = {}): string[] {
  try {
    readConfig(yaml, environment)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

/** The smallest configuration with one part of it replaced or added. */
function with_(section: string, values: string): string {
  const kept = SMALLEST.split('\n').filter(line => !line.startsWith(`${section}:`))
  const needed: Record<string, string> = {
    bluemix: 'organization: acme, ',
    certificate: 'names: [pullpass.pullpass.svc], ',
  }
  return [...kept, `${section}: {${needed[section] ?? ''}${values}}`].join('\n')
}

t.test('three settings are enough, because all others have a default', async t => {
  const config = readConfig(SMALLEST, {})
  t.strictSame(config, {
    domain: 'dedicated.example.com',
    registry: {
      host: 'registry.dedicated.example.com',
      url: 'https://registry.dedicated.example.com',
    },
    bluemix: {
      api: 'https://api.dedicated.example.com',
      login: 'uaa',
      credentialsDirectory: '/etc/pullpass/credentials',
      organization: 'acme',
      namespaceOrganizations: {},
      selectableOrganizations: [],
      timeoutMs: 10_000,
    },
    pullSecret: { name: 'pullpass-registry' },
    admission: { address: '::', port: 8443, waitMs: 2000 },
    operations: { address: '::', port: 8081 },
    controller: {
      concurrency: 4,
      mintsPerMinute: 120,
      revokeGraceSeconds: 86_400,
      rotateGraceSeconds: 3600,
      listEverySeconds: 60,
      verifyEverySeconds: 21_600,
    },
    certificate: {
      mode: 'self-managed',
      names: ['pullpass.pullpass.svc'],
      secretName: 'pullpass-ca',
      webhookConfiguration: 'pullpass',
      leafSeconds: 604_800,
      caSeconds: 31_536_000,
    },
    kubernetes: { namespace: 'pullpass', timeoutMs: 10_000 },
    leader: { leaseName: 'pullpass', leaseSeconds: 15, renewSeconds: 5 },
    shutdown: { drainMs: 5000 },
    log: { level: 'info' },
  })
  t.not(
    readConfig(SMALLEST, {}).bluemix.selectableOrganizations,
    config.bluemix.selectableOrganizations,
  )
})

t.test('every setting can be written, and an empty setting counts as not set', async t => {
  const config = readConfig(
    `
clusterName: staging-2
registry: {host: 'registry.example.com:5000'}
bluemix:
  api: https://api.example.com/cf
  login: iam
  iam: https://iam.example.com
  account: 0123456789abcdef0123456789abcdef
  caFile: /etc/ca.crt
  organization: 8d2c7fd5-1a7a-4dd1-9f2b-0c6f6a1f2f7e
  namespaceOrganizations: {shop: Acme Shop}
  selectableOrganizations: [{organization: acme-data, namespaces: ["data-*", shop]}]
pullSecret: {email:}
controller: {rotateAfterSeconds: 86400}
certificate: {mode: files, directory: /etc/pullpass/tls}
kubernetes:
`,
    {},
  )
  t.equal(config.domain, undefined)
  t.equal(config.clusterName, 'staging-2')
  t.equal(config.registry.url, 'https://registry.example.com:5000')
  t.strictSame(config.bluemix.namespaceOrganizations, { shop: 'Acme Shop' })
  t.strictSame(config.bluemix.selectableOrganizations, [
    { organization: 'acme-data', namespaces: ['data-*', 'shop'] },
  ])
  t.notOk('email' in config.pullSecret)
  t.equal(config.kubernetes.namespace, 'pullpass')
})

t.test('all invalid settings are reported together', async t => {
  const yaml = `
registri: {host: registry.example.com}
admission: {port: http, waitMs: 20000}
certificate: {names: [no_name]}
`
  t.throws(
    () => readConfig(yaml, { PULLPASS_LEADER_LEASE_SECONDS: 'yes', PULLPASS_LOG_LEVLE: 'debug' }),
    {
      name: 'ConfigError',
      message: `configuration is not usable:
  - PULLPASS_LOG_LEVLE is not a setting; did you mean PULLPASS_LOG_LEVEL?
  - registri.host is not a setting; did you mean registry.host?
  - bluemix.organization is required
  - admission.port must be a whole number from 1 to 65535, got "http"
  - admission.waitMs must be a whole number from 0 to 10000, got 20000
  - certificate.names[0] must be a DNS name or an IP address, got "no_name"
  - leader.leaseSeconds (PULLPASS_LEADER_LEASE_SECONDS) must be a whole number from 2 to 3600, got "yes"
  - domain is required (or both bluemix.api and registry.host)`,
    },
  )
})

t.test('a cluster name is one part of a description: a DNS label, which a UID is too', async t => {
  const uid = '8d2c7fd5-1a7a-4dd1-9f2b-0c6f6a1f2f7e'
  t.equal(readConfig(`${SMALLEST}\nclusterName: ${uid}`, {}).clusterName, uid)
  for (const name of ['a/b', 'Staging', '""', '-a', 'a'.repeat(64)]) {
    t.match(problemsOf(`${SMALLEST}\nclusterName: ${name}`), [/^clusterName must be a DNS label/])
  }
})

t.test('Docker Hub is refused, because the kubelet knows it by several names', async t => {
  for (const host of ['docker.io', 'index.docker.io', 'registry-1.docker.io', 'docker.io:443']) {
    t.match(problemsOf(with_('registry', `host: "${host}"`)), [
      /^registry\.host must not be a name of Docker Hub/,
    ])
  }
})

const WRONG: [section: string, values: string, problem: string][] = [
  [
    'registry',
    'host: "https://registry.example.com"',
    'registry.host must be a host or host:port, got "https://registry.example.com"',
  ],
  ['registry', 'host: registry', 'registry.host must be a host or host:port, got "registry"'],
  [
    'registry',
    'host: registry.example.com/acme',
    'registry.host must be a host or host:port, got "registry.example.com/acme"',
  ],
  [
    'registry',
    'host: Registry.example.com',
    'registry.host must be a host or host:port, got "Registry.example.com"',
  ],
  [
    'registry',
    'host: "registry.example.com:0"',
    'registry.host must be a host or host:port, got "registry.example.com:0"',
  ],
  [
    'registry',
    'host: "registry.example.com:65536"',
    'registry.host must be a host or host:port, got "registry.example.com:65536"',
  ],
  [
    'registry',
    'host: "registry.example.com\\n"',
    'registry.host must be a host or host:port, got "registry.example.com\\n"',
  ],
  [
    'registry',
    'url: "http://registry.example.com"',
    'registry.url must be an https:// URL without user, query or fragment, got "http://registry.example.com"',
  ],
  [
    'bluemix',
    'api: "https://me:pass@api.example.com"',
    'bluemix.api must be an https:// URL without user, query or fragment, got text with an @ in it',
  ],
  [
    'bluemix',
    'api: "https://api.example.com?a=b"',
    'bluemix.api must be an https:// URL without user, query or fragment, got "https://api.example.com?a=b"',
  ],
  ['bluemix', 'login: ldap', 'bluemix.login must be one of uaa, iam, got "ldap"'],
  [
    'bluemix',
    'account: acme',
    'bluemix.account must be an account id of 32 hexadecimal digits, got "acme"',
  ],
  ['bluemix', 'login: iam', 'bluemix.iam is required where bluemix.login is iam'],
  [
    'bluemix',
    'credentialsDirectory: aKeyThatIsNoFolder',
    'bluemix.credentialsDirectory must be an absolute path, got something else',
  ],
  [
    'bluemix',
    'apiKey: aKeyThatIsNoSetting',
    'bluemix.apiKey is not a setting; did you mean bluemix.api?',
  ],
  [
    'bluemix',
    'namespaceOrganizations: {Shop: acme}',
    'bluemix.namespaceOrganizations has the key "Shop", which is not a DNS label (a-z, 0-9 and -, at most 63 characters)',
  ],
  [
    'bluemix',
    'namespaceOrganizations: {shop: 7}',
    'bluemix.namespaceOrganizations.shop must be the name or GUID of an organization, got 7',
  ],
  [
    'bluemix',
    'selectableOrganizations: [{organization: x, namespaces: ["*a"]}]',
    'bluemix.selectableOrganizations[0].namespaces[0] must be a namespace, or the start of one followed by *, got "*a"',
  ],
  [
    'bluemix',
    'selectableOrganizations: [{organization: x, namespaces: []}]',
    'bluemix.selectableOrganizations[0].namespaces must be a list of at least one namespace, got a list',
  ],
  [
    'bluemix',
    'selectableOrganizations: [{namespaces: [a]}]',
    'bluemix.selectableOrganizations[0].organization is required',
  ],
  [
    'bluemix',
    'selectableOrganizations: {organization: x}',
    'bluemix.selectableOrganizations must be a list of maps of organization and namespaces, got a map',
  ],
  [
    'pullSecret',
    'name: Pull_Secret',
    'pullSecret.name must be a DNS name (a-z, 0-9, - and ., at most 253 characters), got "Pull_Secret"',
  ],
  ['admission', 'address: localhost', 'admission.address must be an IP address, got "localhost"'],
  ['admission', 'port: 8081', 'admission.port must not be operations.port'],
  [
    'controller',
    'concurrency: 1.5',
    'controller.concurrency must be a whole number from 1 to 64, got 1.5',
  ],
  [
    'controller',
    'rotateAfterSeconds: 3600',
    'controller.rotateAfterSeconds must be more than controller.rotateGraceSeconds',
  ],
  [
    'certificate',
    'mode: files',
    'certificate.directory is required where certificate.mode is files',
  ],
  [
    'certificate',
    'mode: cert-manager',
    'certificate.mode must be one of self-managed, files, got "cert-manager"',
  ],
  [
    'certificate',
    'caSeconds: 1000000',
    'certificate.caSeconds must be at least four times certificate.leafSeconds',
  ],
  [
    'kubernetes',
    'namespace: a.b',
    'kubernetes.namespace must be a DNS label (a-z, 0-9 and -, at most 63 characters), got "a.b"',
  ],
  [
    'leader',
    'renewSeconds: 8',
    'leader.leaseSeconds must be at least three times leader.renewSeconds',
  ],
  [
    'log',
    'level: loud',
    'log.level must be one of info, fatal, error, warn, debug, trace, got "loud"',
  ],
]

t.test('an invalid setting is reported by its name, with the expected value', async t => {
  for (const [section, values, problem] of WRONG) {
    t.strictSame(problemsOf(with_(section, values)), [problem], `${section}: {${values}}`)
  }
  t.strictSame(problemsOf(`${SMALLEST}\nleader: 5`), ['leader must be a map of settings, got 5'])
  t.strictSame(problemsOf(`${SMALLEST}\nlogs: {}`), ['logs is not a setting; did you mean log?'])
  t.strictSame(problemsOf(with_('certificate', '').replace(/^certificate.*$/m, '')), [
    'certificate.names is required where certificate.mode is self-managed',
  ])
  t.strictSame(
    problemsOf(SMALLEST.replace('dedicated.example.com', 'https://x')),
    ['domain must be a domain name like dedicated.example.com, got "https://x"'],
    'settings that follow from the invalid domain are not reported',
  )
  t.equal(
    problemsOf(
      with_('certificate', 'x: 1').replace(
        'pullpass.pullpass.svc',
        Array.from({ length: 20 }, () => 'a_b').join(', '),
      ),
    ).length,
    21,
  )
})

t.test('values at the limits are accepted', async t => {
  const hosts = [
    'localhost',
    'localhost:5000',
    'registry:5000',
    'a.b',
    '10.0.0.7',
    'registry.example.com:65535',
  ]
  for (const host of hosts) t.strictSame(problemsOf(with_('registry', `host: "${host}"`)), [], host)
  for (const name of ['127.0.0.1', '"::1"', 'pullpass', 'pullpass.pullpass.svc.cluster.local']) {
    t.strictSame(problemsOf(SMALLEST.replace('pullpass.pullpass.svc', name)), [], name)
  }
  t.strictSame(
    problemsOf(with_('bluemix', 'selectableOrganizations: [{organization: x, namespaces: ["*"]}]')),
    [],
  )
  t.strictSame(problemsOf(with_('admission', 'waitMs: 0, address: 0.0.0.0')), [])
})

t.test('environment variables override the file, and have the type of their setting', async t => {
  const config = readConfig(`${SMALLEST}\nadmission: {waitMs: 1, port: 1}`, {
    PATH: '/bin',
    PULLPASS_ADMISSION_WAIT_MS: '500',
    PULLPASS_LEADER_LEASE_SECONDS: '30',
    PULLPASS_BLUEMIX_ORGANIZATION: '42',
    PULLPASS_BLUEMIX_NAMESPACE_ORGANIZATIONS: '{"shop": "acme-shop"}',
    PULLPASS_CERTIFICATE_NAMES: '[a.b, 127.0.0.1]',
    PULLPASS_KUBERNETES_KUBECONFIG: '',
  })
  t.match(config.admission, { waitMs: 500, port: 1 })
  t.equal(config.leader.leaseSeconds, 30)
  t.equal(config.bluemix.organization, '42')
  t.strictSame(config.bluemix.namespaceOrganizations, { shop: 'acme-shop' })
  t.strictSame(config.certificate.names, ['a.b', '127.0.0.1'])
  t.notOk('kubeconfig' in config.kubernetes)

  t.strictSame(
    problemsOf(SMALLEST, { PULLPASS_CERTIFICATE_NAMES: '[a', PULLPASS_APIKEY: 's3cret' }),
    [
      'PULLPASS_APIKEY is not a setting',
      'certificate.names (PULLPASS_CERTIFICATE_NAMES) must be a list of DNS names or IP addresses, got "[a"',
    ],
  )
  t.equal(new Set(settings.map(({ variable }) => variable)).size, settings.length)
})

t.test('variables of the kubelet for a Service are not read as settings', async t => {
  t.strictSame(
    problemsOf(SMALLEST, {
      PULLPASS_SERVICE_HOST: '10.0.0.7',
      PULLPASS_SERVICE_PORT: '443',
      PULLPASS_SERVICE_PORT_HTTPS: '443',
      PULLPASS_PORT: 'tcp://10.0.0.7:443',
      PULLPASS_PORT_443_TCP: 'tcp://10.0.0.7:443',
      PULLPASS_PORT_443_TCP_PROTO: 'tcp',
      PULLPASS_PORT_443_TCP_PORT: '443',
      PULLPASS_PORT_443_TCP_ADDR: '10.0.0.7',
      PULLPASS_OPERATIONS_PORT: 'tcp://10.0.0.8:8081',
    }),
    [],
  )
})

t.test('an invalid YAML file is reported by line, and its content is not quoted', async t => {
  t.strictSame(problemsOf('domain: a.b\nlog: {level: info}\ndomain: b.c\n'), [
    'line 3 of the file is not valid YAML (duplicate key)',
  ])
  t.match(problemsOf('bluemix:\n  "s3cret" s3cret\n'), [/^line 2 of the file is not valid YAML/])
  t.match(problemsOf('a: 1\n---\nb: 2\n'), [/multiple docs/])
  t.strictSame(problemsOf('log: &log {level: *log}\n'), [
    'the file must not use YAML aliases (*name)',
  ])
  t.strictSame(problemsOf('- a\n'), ['the file must be a map of settings'])
  t.strictSame(problemsOf(''), [
    'bluemix.organization is required',
    'domain is required (or both bluemix.api and registry.host)',
    'certificate.names is required where certificate.mode is self-managed',
  ])
})

t.test('the table of settings has a row for each setting', async t => {
  const table = settingsTable()
  t.equal(table.split('\n').length, settings.length + 3)
  t.match(table, '| `admission.waitMs` | `2000` |')
  t.match(table, '| `registry.host` | `registry.<domain>` |')
  t.match(table, '| `bluemix.organization` | (required) |')
  t.notMatch(table, /undefined|\| \|$/m)
})

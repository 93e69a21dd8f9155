import { type Static, Type } from 'typebox'
import {
  address,
  certificateName,
  choice,
  SECONDS,
  section,
  TIMEOUTS,
  text,
  whole,
} from './grammar.ts'

/* The settings of the service itself, apart from the environment it serves. */

/** A port to listen on. */
const PORTS = [1, 65_535] as const

const admission = section({
  address: address('Address the webhook listens on.', '::'),
  port: whole(PORTS, 'Port the webhook listens on.', 8443),
  waitMs: whole([0, 10_000], 'Longest wait of a new pod for a Secret that is not there yet.', 2000),
})

const operations = section({
  address: address('Address of probes and metrics.', '::'),
  port: whole(PORTS, 'Port of probes and metrics.', 8081),
})

const certificate = section({
  mode: choice(
    ['self-managed', 'files'],
    'Who makes the serving certificate: pullpass, or someone else.',
  ),
  directory: Type.Optional(
    text(
      'path',
      'Folder with `tls.crt` and `tls.key`, perhaps `ca.crt`. Needed for `mode: files`.',
    ),
  ),
  names: Type.Array(certificateName(), {
    expected: 'a list of DNS names or IP addresses',
    description:
      'Names by which the API server calls the webhook. Required for `mode: self-managed`; checked in `mode: files`.',
    default: [],
  }),
  secretName: text('subdomain', 'Secret of the CA, in `kubernetes.namespace`.', 'pullpass-ca'),
  webhookConfiguration: text(
    'subdomain',
    'MutatingWebhookConfiguration whose `caBundle` is kept.',
    'pullpass',
  ),
  leafSeconds: whole([5, SECONDS[1]], 'Life of a serving certificate.', 604_800),
  caSeconds: whole(
    [20, SECONDS[1]],
    'Life of a CA. At least four times `leafSeconds`.',
    31_536_000,
  ),
})

const kubernetes = section({
  kubeconfig: Type.Optional(
    text(
      'path',
      'Kubeconfig file. Where left out: in the cluster its own account, else the usual places.',
    ),
  ),
  namespace: text('label', 'Namespace pullpass itself runs in.', 'pullpass'),
  timeoutMs: whole(TIMEOUTS, 'Longest wait for one answer of the API server.', 10_000),
})

const leader = section({
  leaseName: text('subdomain', 'Name of the Lease.', 'pullpass'),
  leaseSeconds: whole([2, 3600], 'How long a silent leader stays leader.', 15),
  renewSeconds: whole(
    [1, 1200],
    'How often the leader renews. At most a third of `leaseSeconds`.',
    5,
  ),
})

const shutdown = section({
  drainMs: whole([0, 120_000], 'How long calls are still answered after SIGTERM.', 5000),
})

const log = section({
  level: choice(
    ['info', 'fatal', 'error', 'warn', 'debug', 'trace'],
    'Least important line logged.',
  ),
})

const domain = text(
  'domain',
  'Domain of the environment. May be left out where `bluemix.api` and `registry.host` are both set.',
)

const registry = section({
  host: text('host', 'Registry as images name it.'),
  url: text('https', 'Where the token API is.'),
})

const selectable = Type.Object(
  {
    organization: text('organization', 'The organization'),
    namespaces: Type.Array(text('namespaces', 'Who may choose it'), {
      minItems: 1,
      expected: 'a list of at least one namespace',
    }),
  },
  { additionalProperties: false, expected: 'a map of organization and namespaces' },
)

const bluemix = section({
  api: text('https', 'Cloud Controller of the environment.'),
  login: choice(['uaa', 'iam'], 'Where to log in.'),
  iam: Type.Optional(
    text('https', 'IAM of the environment, without `/oidc/token`. Needed for `login: iam`.'),
  ),
  credentialsDirectory: text(
    'path',
    'Folder with the file `api-key`, or the files `username` and `password`. Read again when they change.',
    '/etc/pullpass/credentials',
  ),
  caFile: Type.Optional(
    text('path', 'Private CA of the environment (PEM), trusted beside the public ones.'),
  ),
  organization: text('organization', 'Organization whose tokens the namespaces get: name or GUID.'),
  namespaceOrganizations: Type.Record(
    Type.String(),
    text('organization', 'Organization of the namespace'),
    {
      expected: 'a map of namespace to organization',
      propertyNames: text('label', 'Namespace'),
      description: 'Namespaces that get another organization than that one.',
      default: {},
    },
  ),
  selectableOrganizations: Type.Array(selectable, {
    expected: 'a list of maps of organization and namespaces',
    description:
      'Which namespaces may choose which organization by the annotation `pullpass.io/organization`.',
    default: [],
  }),
  timeoutMs: whole(TIMEOUTS, 'Longest wait for one answer of the environment.', 10_000),
})

const pullSecret = section({
  name: text('subdomain', 'Name of the Secret in each namespace.', 'pullpass-registry'),
  email: Type.Optional(text('email', 'E-mail address in the Secret. None is needed.')),
})

const controller = section({
  concurrency: whole([1, 64], 'Namespaces worked on at the same time.', 4),
  mintsPerMinute: whole([1, 6000], 'Most tokens minted in a minute.', 120),
  revokeGraceSeconds: whole(
    [0, SECONDS[1]],
    'How long Secret and token outlive the label of their namespace.',
    86_400,
  ),
  rotateAfterSeconds: Type.Optional(
    whole(SECONDS, 'Age at which a token is replaced. Never where left out.'),
  ),
  rotateGraceSeconds: whole([0, SECONDS[1]], 'How long a replaced token stays valid.', 3600),
  verifyEverySeconds: whole(
    SECONDS,
    'How often the registry is asked whether it takes a credential.',
    21_600,
  ),
})

/** Every setting there is. JSON Schema, with `expected` (how an error names what is right) added. */
export const configSchema = section({
  domain: Type.Optional(domain),
  registry,
  bluemix,
  pullSecret,
  admission,
  operations,
  controller,
  certificate,
  kubernetes,
  leader,
  shutdown,
  log,
})

/** The settings as the program gets them: checked, and with every default filled in. */
export type Config = Static<typeof configSchema>

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
  waitMs: whole([0, 10_000], 'Maximum time that a new pod waits for a missing Secret.', 2000),
})

const operations = section({
  address: address('Address of probes and metrics.', '::'),
  port: whole(PORTS, 'Port of probes and metrics.', 8081),
})

const certificate = section({
  mode: choice(
    ['self-managed', 'files'],
    'Source of the serving certificate: pullpass itself, or mounted files.',
  ),
  directory: Type.Optional(
    text(
      'path',
      'Folder with `tls.crt` and `tls.key`, optionally `ca.crt`. Required for `mode: files`.',
    ),
  ),
  names: Type.Array(certificateName(), {
    expected: 'a list of DNS names or IP addresses',
    description:
      'Names by which the API server calls the webhook. Required for `mode: self-managed`; checked in `mode: files`.',
    default: [],
  }),
  secretName: text(
    'subdomain',
    'Name of the Secret with the CA, in `kubernetes.namespace`.',
    'pullpass-ca',
  ),
  webhookConfiguration: text(
    'subdomain',
    'Name of the MutatingWebhookConfiguration that gets the `caBundle`.',
    'pullpass',
  ),
  leafSeconds: whole([5, SECONDS[1]], 'Lifetime of a serving certificate.', 604_800),
  caSeconds: whole(
    [20, SECONDS[1]],
    'Lifetime of the CA. At least four times `leafSeconds`.',
    31_536_000,
  ),
})

const kubernetes = section({
  kubeconfig: Type.Optional(
    text(
      'path',
      'Kubeconfig file. Default: in-cluster service account, else `$KUBECONFIG` or `~/.kube/config`.',
    ),
  ),
  namespace: text('label', 'Namespace pullpass itself runs in.', 'pullpass'),
  timeoutMs: whole(TIMEOUTS, 'Timeout of a request to the API server.', 10_000),
})

const leader = section({
  leaseName: text('subdomain', 'Name of the Lease.', 'pullpass'),
  leaseSeconds: whole([2, 3600], 'Lease duration.', 15),
  renewSeconds: whole(
    [1, 1200],
    'Interval between renewals of the Lease. At most a third of `leaseSeconds`.',
    5,
  ),
})

const shutdown = section({
  drainMs: whole([0, 120_000], 'Time after SIGTERM in which reviews are still answered.', 5000),
})

const log = section({
  level: choice(['info', 'fatal', 'error', 'warn', 'debug', 'trace'], 'Minimum log level.'),
})

const domain = text(
  'domain',
  'Domain of the environment. Optional if both `bluemix.api` and `registry.host` are set.',
)

const clusterName = text(
  'label',
  'Name of this cluster in the descriptions of its tokens. Default: the UID of kube-system. A change replaces all tokens.',
)

const registry = section({
  host: text('host', 'Registry host as image names contain it.'),
  url: text('https', 'URL of the token API.'),
})

const selectable = Type.Object(
  {
    organization: text('organization', 'The organization'),
    namespaces: Type.Array(text('namespaces', 'Namespaces that may choose it'), {
      minItems: 1,
      expected: 'a list of at least one namespace',
    }),
  },
  { additionalProperties: false, expected: 'a map of organization and namespaces' },
)

const bluemix = section({
  api: text('https', 'URL of the Cloud Controller.'),
  login: choice(['uaa', 'iam'], 'Login server.'),
  iam: Type.Optional(
    text('https', 'URL of IAM, without `/oidc/token`. Required for `login: iam`.'),
  ),
  account: Type.Optional(
    text('account', 'Account id, for a registry that needs the header `Account`.'),
  ),
  credentialsDirectory: text(
    'path',
    'Folder with the file `api-key`, or the files `username` and `password`. pullpass reads them again when they change.',
    '/etc/pullpass/credentials',
  ),
  caFile: Type.Optional(
    text('path', 'Private CA of the environment (PEM), trusted in addition to the public CAs.'),
  ),
  organization: text(
    'organization',
    'Name or GUID of the organization whose tokens the namespaces get.',
  ),
  namespaceOrganizations: Type.Record(
    Type.String(),
    text('organization', 'Organization of the namespace'),
    {
      expected: 'a map of namespace to organization',
      propertyNames: text('label', 'Namespace'),
      description: 'Other organizations by namespace.',
      default: {},
    },
  ),
  selectableOrganizations: Type.Array(selectable, {
    expected: 'a list of maps of organization and namespaces',
    description:
      'Organizations that namespaces may choose with the annotation `pullpass.io/organization`.',
    default: [],
  }),
  timeoutMs: whole(TIMEOUTS, 'Timeout of a request to the environment.', 10_000),
})

const pullSecret = section({
  name: text('subdomain', 'Name of the Secret in each namespace.', 'pullpass-registry'),
  email: Type.Optional(text('email', 'E-mail address in the Secret. Optional.')),
})

const controller = section({
  concurrency: whole([1, 64], 'Number of namespaces that are reconciled at the same time.', 4),
  mintsPerMinute: whole([1, 6000], 'Maximum number of tokens minted per minute.', 120),
  revokeGraceSeconds: whole(
    [0, SECONDS[1]],
    'Time after which Secret and token are removed when a namespace loses its label.',
    86_400,
  ),
  rotateAfterSeconds: Type.Optional(
    whole(SECONDS, 'Rotate tokens older than this. Default: never.'),
  ),
  rotateGraceSeconds: whole([0, SECONDS[1]], 'Time for which a replaced token stays valid.', 3600),
  listEverySeconds: whole(
    [5, 86_400],
    "Interval between two lists of an organization's tokens.",
    60,
  ),
  verifyEverySeconds: whole(SECONDS, 'Interval between credential checks.', 21_600),
})

/** All settings, as JSON Schema. `expected` is added: the words for a valid value in an error. */
export const configSchema = section({
  domain: Type.Optional(domain),
  clusterName: Type.Optional(clusterName),
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

/** The settings, valid and with all defaults. */
export type Config = Static<typeof configSchema>

import { type Static, Type } from 'typebox'
import { choice, SECONDS, section, TIMEOUTS, text, whole } from './grammar.ts'
import {
  admission,
  certificate,
  kubernetes,
  leader,
  log,
  operations,
  shutdown,
} from './service-schema.ts'

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

const keeper = section({
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
  keeper,
  certificate,
  kubernetes,
  leader,
  shutdown,
  log,
})

/** The settings as the program gets them: checked, and with every default filled in. */
export type Config = Static<typeof configSchema>

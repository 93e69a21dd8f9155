import type { Problem } from './problems.ts'
import type { Config } from './schema.ts'

/** A rule between settings, told as a problem of `name`. */
interface Rule {
  name: string
  says: string
  /** The other settings it is about. */
  others: string[]
  holds: (config: Config) => boolean
}

const DOCKER_HUB = /^(?:index\.|registry-1\.)?docker\.io(?::\d+)?$/

const RULES: Rule[] = [
  {
    name: 'domain',
    says: 'is required (or both bluemix.api and registry.host)',
    others: ['bluemix.api', 'registry.host'],
    // Both are made from the domain, so what the types promise is not so before this rule holds.
    holds: ({ bluemix, registry }) => Boolean(bluemix.api && registry.host),
  },
  {
    name: 'registry.host',
    // The kubelet reads them as docker.io; the API server's condition on image names cannot.
    says: 'must not be a name of Docker Hub: images of Docker Hub are written in too many ways',
    others: [],
    holds: ({ registry }) => !DOCKER_HUB.test(registry.host ?? ''),
  },
  {
    name: 'bluemix.iam',
    says: 'is required where bluemix.login is iam',
    others: ['bluemix.login'],
    holds: ({ bluemix }) => bluemix.login !== 'iam' || bluemix.iam !== undefined,
  },
  {
    name: 'admission.port',
    says: 'must not be operations.port',
    others: ['operations.port'],
    holds: ({ admission, operations }) => admission.port !== operations.port,
  },
  {
    name: 'keeper.rotateAfterSeconds',
    // Else more than two tokens of a namespace are valid at the same time.
    says: 'must be more than keeper.rotateGraceSeconds',
    others: ['keeper.rotateGraceSeconds'],
    holds: ({ keeper }) =>
      keeper.rotateAfterSeconds === undefined ||
      keeper.rotateAfterSeconds > keeper.rotateGraceSeconds,
  },
  {
    name: 'certificate.directory',
    says: 'is required where certificate.mode is files',
    others: ['certificate.mode'],
    holds: ({ certificate }) => certificate.mode !== 'files' || certificate.directory !== undefined,
  },
  {
    name: 'certificate.names',
    says: 'is required where certificate.mode is self-managed',
    others: ['certificate.mode'],
    holds: ({ certificate }) => certificate.mode !== 'self-managed' || certificate.names.length > 0,
  },
  {
    name: 'certificate.caSeconds',
    // The last third of a CA's life must hold the life of a leaf and the change to the next CA.
    says: 'must be at least four times certificate.leafSeconds',
    others: ['certificate.leafSeconds'],
    holds: ({ certificate }) => certificate.caSeconds >= 4 * certificate.leafSeconds,
  },
  {
    name: 'leader.leaseSeconds',
    says: 'must be at least three times leader.renewSeconds',
    others: ['leader.renewSeconds'],
    holds: ({ leader }) => leader.leaseSeconds >= 3 * leader.renewSeconds,
  },
]

/** The rules that do not hold, as far as what they are about is right in itself (`problems`). */
export function brokenRules(config: Config, problems: Problem[]): Problem[] {
  return RULES.filter(rule => {
    const about = [rule.name, ...rule.others]
    return (
      !about.some(name => problems.some(problem => concerns(problem, name))) && !rule.holds(config)
    )
  })
}

/** A problem of a whole section concerns each setting in it, one of an item its list. */
function concerns(problem: Problem, name: string): boolean {
  return (
    problem.name === name ||
    name.startsWith(`${problem.name}.`) ||
    problem.name.startsWith(`${name}[`)
  )
}

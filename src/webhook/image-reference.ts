/**
 * Image references as the kubelet reads them (distribution/reference v0.6: regexp.go, normalize.go).
 *
 *   reference   := [ registry '/' ] repository [ ':' tag ] [ '@' digest ]
 *   registry    := host [ ':' digits ]
 *   host        := label ( '.' label )* | '[' hex digits and colons ']'
 *   label       := letter or digit, then letters, digits and '-', the last of them not '-'
 *   repository  := component ( '/' component )*              at most 255 characters
 *   component   := [a-z0-9]+ ( ( '.' | '_' | '__' | '-'+ ) [a-z0-9]+ )*
 *   tag         := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
 *   digest      := 'sha256:' 64 hex | 'sha384:' 96 hex | 'sha512:' 128 hex      (lower case)
 *
 * What stands before the first '/' is the registry if it is `localhost`, or holds '.', ':' or an
 * upper-case letter; all else is a repository of Docker Hub (`docker.io`, also written
 * `index.docker.io`), where a single component gets `library/` in front. 64 hex digits alone are no
 * reference.
 */
interface Reference {
  /** host[:port] exactly as written; `docker.io` where none was. */
  registry: string
  repository: string
  /** Absent tag and digest mean `latest`. */
  tag: string | undefined
  digest: string | undefined
}

const LABEL = '[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?'
const HOST = `(?:${LABEL}(?:\\.${LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`
const COMPONENT = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*'
const TAG = '[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}'
const DIGEST = 'sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}'

/** A first part that is no host but a component (`my_host.io`) parses, and the keyring matches it. */
const REGISTRY = new RegExp(`^(?:${HOST}|${COMPONENT})$`)
const REMAINDER = new RegExp(`^(${COMPONENT}(?:/${COMPONENT})*)(?::(${TAG}))?(?:@(${DIGEST}))?$`)
const IDENTIFIER = /^[a-f0-9]{64}$/

const DOCKER_HUB = 'docker.io'
const LONGEST_REPOSITORY = 255
/** Host of 253, port, repository, tag and digest come to less than 800. */
const LONGEST_REFERENCE = 1024

/** The parts of an image reference; undefined where it does not parse (the kubelet's to refuse). */
export function parseReference(image: string): Reference | undefined {
  if (image.length > LONGEST_REFERENCE || IDENTIFIER.test(image)) return undefined
  const { registry, remainder } = splitRegistry(image)
  const [, repository, tag, digest] = REMAINDER.exec(remainder) ?? []
  if (repository === undefined || repository.length > LONGEST_REPOSITORY) return undefined
  return REGISTRY.test(registry) ? { registry, repository, tag, digest } : undefined
}

/**
 * Whether the kubelet would offer this image the credential of `registryHost`, a host[:port].
 * Host, port and case must be equal (kubernetes/kubernetes pkg/credentialprovider/keyring.go).
 */
export function isFromRegistry(image: string, registryHost: string): boolean {
  return parseReference(image)?.registry === registryHost
}

function splitRegistry(image: string): { registry: string; remainder: string } {
  const slash = image.indexOf('/')
  const first = image.slice(0, Math.max(slash, 0))
  if (!namesRegistry(first)) return onDockerHub(image)
  const remainder = image.slice(slash + 1)
  if (first === DOCKER_HUB || first === `index.${DOCKER_HUB}`) return onDockerHub(remainder)
  return { registry: first, remainder }
}

function namesRegistry(first: string): boolean {
  return first === 'localhost' || /[.:A-Z]/.test(first)
}

function onDockerHub(remainder: string): { registry: string; remainder: string } {
  const official = !remainder.includes('/')
  return { registry: DOCKER_HUB, remainder: official ? `library/${remainder}` : remainder }
}

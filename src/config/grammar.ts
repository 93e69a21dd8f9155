import { type TProperties, Type } from 'typebox'
import { dnsLabel } from '../names.ts'

/*
 * The grammars of the settings.
 *
 * | what      | grammar                                           | source                                   |
 * |-----------|---------------------------------------------------|------------------------------------------|
 * | LABEL     | a-z 0-9 -, no - at either end, at most 63         | Kubernetes "DNS label", RFC 1123         |
 * | SUBDOMAIN | LABEL ("." LABEL)*, at most 253                   | Kubernetes "DNS subdomain", RFC 1123     |
 * | HOST      | as an image names a registry: host or host:port;  | distribution/reference: a first part     |
 * |           | "localhost", or a dot, or a port                  | without dot and port is no registry      |
 * | HTTPS     | https://host[:port][/path], no user, no query     | RFC 3986, narrowed                       |
 * | NAMESPACES| a namespace name, or the start of one and then *  | ours                                     |
 */
const LABEL = dnsLabel
const SUBDOMAIN = `(?=.{1,253}$)${LABEL}(?:\\.${LABEL})*`
const PORT =
  ':(?:[1-9]\\d{0,3}|[1-5]\\d{4}|6[0-4]\\d{3}|65[0-4]\\d{2}|655[0-2]\\d|6553[0-5])(?![0-9])'
const HOST = `(?:${LABEL}(?:\\.${LABEL})+(?:${PORT})?|localhost(?:${PORT})?|${LABEL}${PORT})`
const HTTPS = `https://${LABEL}(?:\\.${LABEL})*(?:${PORT})?(?:/[-A-Za-z0-9._~/]*)?`
const NAMESPACES = `(?:${LABEL}|(?:[a-z0-9][-a-z0-9]{0,62})?\\*)`

/** Limits of a request timeout, in milliseconds. */
export const TIMEOUTS = [100, 120_000] as const
/** From a second, for trying things out, to ten years. */
export const SECONDS = [1, 315_360_000] as const

/** The pattern of each kind of text, and its name in an error message. */
const TEXTS = {
  domain: [`${LABEL}(?:\\.${LABEL})+`, 'a domain name like dedicated.example.com'],
  host: [HOST, 'a host or host:port'],
  https: [HTTPS, 'an https:// URL without user, query or fragment'],
  label: [LABEL, 'a DNS label (a-z, 0-9 and -, at most 63 characters)'],
  subdomain: [SUBDOMAIN, 'a DNS name (a-z, 0-9, - and ., at most 253 characters)'],
  namespaces: [NAMESPACES, 'a namespace, or the start of one followed by *'],
  organization: ['\\S(?:.{0,253}\\S)?', 'the name or GUID of an organization'],
  account: ['[0-9a-fA-F]{32}', 'an account id of 32 hexadecimal digits'],
  path: ['/.*', 'an absolute path'],
  email: ['[^\\s@"]+@[^\\s@"]+', 'an e-mail address'],
} as const

type TextKind = keyof typeof TEXTS

/**
 * A setting that is text of one of the kinds above. `initial`: its default. Messages never contain a
 * wrong path: where a folder of credentials is expected, people write the credential itself.
 */
export function text(kind: TextKind, description: string, initial?: string) {
  const [pattern, expected] = TEXTS[kind]
  return Type.String({
    pattern: `^${pattern}$`,
    expected,
    description,
    ...(kind === 'path' ? { hidden: true } : {}),
    ...(initial === undefined ? {} : { default: initial }),
  })
}

/** A setting that is a whole number within bounds. `initial`: its default. */
export function whole(range: readonly [number, number], description: string, initial?: number) {
  const [minimum, maximum] = range
  const expected = `a whole number from ${minimum} to ${maximum}`
  return Type.Integer({
    minimum,
    maximum,
    expected,
    description,
    ...(initial === undefined ? {} : { default: initial }),
  })
}

/** A setting that is one of a few words; the first is its default. */
export function choice<Words extends string[]>(words: readonly [...Words], description: string) {
  const expected = `one of ${words.join(', ')}`
  return Type.Enum([...words], { expected, description, default: words[0] })
}

/** An IP address to listen on. */
export function address(description: string, initial: string) {
  const options = { expected: 'an IP address', description, default: initial }
  return Type.Union([Type.String({ format: 'ipv4' }), Type.String({ format: 'ipv6' })], options)
}

/** A name in a certificate: DNS name or IP address. */
export function certificateName() {
  const expected = 'a DNS name or an IP address'
  const kinds = [
    Type.String({ pattern: `^${SUBDOMAIN}$` }),
    Type.String({ format: 'ipv4' }),
    Type.String({ format: 'ipv6' }),
  ] as const
  return Type.Union([...kinds], { expected })
}

/** A group of settings; a missing group gets its defaults. */
export function section<Properties extends TProperties>(properties: Properties) {
  const expected = 'a map of settings'
  return Type.Object(properties, { additionalProperties: false, expected, default: {} })
}

import { parse } from 'yaml'
import { isMap, type Problem, suggestion } from './problems.ts'
import { type Setting, settings } from './settings.ts'

export type Environment = Record<string, string | undefined>

/**
 * Puts the values of PULLPASS_... variables over those of the file, in place. Lists and maps are
 * YAML (or JSON) in a variable. An empty variable counts as not set. Returns the variables that
 * are no setting, by name only: their value may be anything.
 */
export function applyEnvironment(
  written: Record<string, unknown>,
  environment: Environment,
): Problem[] {
  const known = settings.map(({ variable }) => variable)
  const problems: Problem[] = []
  for (const [variable, text] of Object.entries(environment).filter(isOurs)) {
    const setting = settings.find(one => one.variable === variable)
    if (setting) put(written, setting, text)
    else problems.push({ name: variable, says: `is not a setting${suggestion(variable, known)}` })
  }
  return problems
}

/*
 * In a namespace with a Service named pullpass or pullpass-..., the kubelet sets variables of our
 * prefix (kubernetes/kubernetes pkg/kubelet/envvars):
 *
 *   X_SERVICE_HOST  X_SERVICE_PORT  X_SERVICE_PORT_<NAME>
 *   X_PORT=tcp://10.0.0.7:443  X_PORT_443_TCP=...  X_PORT_443_TCP_PROTO  X_PORT_443_TCP_PORT  X_PORT_443_TCP_ADDR
 */
const SERVICE_LINK =
  /_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/
const SERVICE_LINK_URL = /^(tcp|udp|sctp):\/\//

function isOurs(variable: [string, string | undefined]): variable is [string, string] {
  const [name, value] = variable
  if (!name.startsWith('PULLPASS_') || value === undefined || value === '') return false
  return !SERVICE_LINK.test(name) && !(name.endsWith('_PORT') && SERVICE_LINK_URL.test(value))
}

function put(written: Record<string, unknown>, setting: Setting, text: string): void {
  let place = written
  for (const key of setting.path.slice(0, -1)) {
    place[key] ??= {}
    const next = place[key]
    if (!isMap(next)) return
    place = next
  }
  place[setting.path.at(-1) as string] = typed(setting.schema.type, text)
}

/** A value that cannot be of the type stays text: the check against the schema then says so. */
function typed(type: string | undefined, text: string): unknown {
  if (type === 'integer') return /^-?\d+$/.test(text) ? Number(text) : text
  if (type === 'array' || type === 'object') return parsed(text)
  return text
}

function parsed(text: string): unknown {
  try {
    return parse(text, { logLevel: 'error', maxAliasCount: 0 })
  } catch {
    return text
  }
}

/** One entry of the `access` claim of a registry's bearer token. */
export interface Access {
  type: string
  name: string
  actions: string[]
}

/**
 * Scopes as the registry's challenge names them (distribution docs/spec/auth/scope.md):
 *
 *     scope = type ":" name ":" action *( "," action )
 *
 * The name may hold a colon (host:port/path), so the cuts are the first and the last one.
 * Undefined where one is malformed; empty scopes are skipped.
 */
export function parseScopes(scopes: string[]): Access[] | undefined {
  const parsed = scopes.filter(scope => scope !== '').map(parseScope)
  return parsed.every(each => each !== undefined) ? parsed : undefined
}

/** What of it may be granted: pull within the namespaces, push and delete only with `push`. */
export function grantable(
  wanted: Access[],
  { namespaces, push }: { namespaces: string[]; push: boolean },
): Access[] {
  const allowed = push ? ['pull', 'push', 'delete'] : ['pull']
  return wanted
    .filter(({ type }) => type === 'repository')
    .filter(({ name }) => namespaces.some(namespace => name.startsWith(`${namespace}/`)))
    .map(access => ({ ...access, actions: access.actions.filter(each => allowed.includes(each)) }))
    .filter(({ actions }) => actions.length > 0)
}

function parseScope(scope: string): Access | undefined {
  const [, type, name, actions] = /^([^:]+):(.+):([a-z*,]*)$/.exec(scope) ?? []
  if (type === undefined || name === undefined || actions === undefined) return undefined
  return { type: type.replace(/\(.*\)$/, ''), name, actions: actions.split(',').filter(Boolean) }
}

/**
 * What a request is to the API server, as RBAC and audit name it.
 *
 * | path, after the server's own prefix                        | resource                |
 * |------------------------------------------------------------|-------------------------|
 * | /api/VERSION[/namespaces/NS]/RESOURCE[/NAME[/SUB]]         | RESOURCE or RESOURCE/SUB |
 * | /apis/GROUP/VERSION[/namespaces/NS]/RESOURCE[/NAME[/SUB]]  | the same                |
 * | /api/VERSION/namespaces/NAME[/status or /finalize]         | namespaces              |
 * | anything else                                              | none                    |
 */
export interface RequestInfo {
  verb: string
  /**
   * Never holds the name of an object, so the number of values is bounded by what this program asks
   * for.
   */
  resource: string
}

/**
 * Verb and resource of `method` and `target` (path with query), by the rules of
 * kubernetes/apiserver pkg/endpoints/request/requestinfo.go.
 */
export function requestInfo(method: string, target: string): RequestInfo {
  const [path = '', query = ''] = target.split('?', 2)
  const parts = resourceParts(path.split('/').filter(Boolean))
  if (!parts) return { verb: method.toLowerCase(), resource: 'none' }
  const [resource, name, subresource] = parts
  return {
    verb: verbOf(method, name !== undefined, isWatch(query)),
    resource: subresource === undefined ? resource : `${resource}/${subresource}`,
  }
}

type ResourceParts = [resource: string, name?: string, subresource?: string]

function resourceParts(segments: string[]): ResourceParts | undefined {
  const rest = afterVersion(segments)
  if (!rest?.[0]) return undefined
  const inNamespace = rest[0] === 'namespaces' && rest.length > 2 && !NAMESPACE_PARTS.has(rest[2])
  return (inNamespace ? rest.slice(2) : rest).slice(0, 3) as ResourceParts
}

const NAMESPACE_PARTS = new Set<string | undefined>(['status', 'finalize'])

function afterVersion(segments: string[]): string[] | undefined {
  if (segments[0] === 'api') return segments.slice(2)
  if (segments[0] === 'apis') return segments.slice(3)
  return undefined
}

function isWatch(query: string): boolean {
  return ['true', '1'].includes(new URLSearchParams(query).get('watch') ?? '')
}

const VERBS: Record<string, string> = { POST: 'create', PUT: 'update', PATCH: 'patch' }

function verbOf(method: string, named: boolean, watch: boolean): string {
  if (method === 'GET' && watch) return 'watch'
  if (method === 'GET') return named ? 'get' : 'list'
  if (method === 'DELETE') return named ? 'delete' : 'deletecollection'
  return VERBS[method] ?? method.toLowerCase()
}

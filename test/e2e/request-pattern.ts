import type { AuditEvent } from '../../sandbox/control-plane.ts'

const service = 'system:serviceaccount:pullpass:pullpass'
const oneName = 'fieldSelector=metadata.name%3Dpullpass-registry'

/**
 * Requests of pullpass for Secrets that are not as they should be:
 *
 * | request               | as it should be                                            |
 * |-----------------------|------------------------------------------------------------|
 * | list, watch           | of the one name only                                       |
 * | POST                  | never, but for its own authority in its own namespace      |
 * | PUT, deletecollection | never, but for its own authority in its own namespace      |
 * | apply with force      | never in a namespace for which `foreign` returns true      |
 * | anything              | of the one name                                            |
 */
export function unusualRequests(audit: AuditEvent[], foreign: (namespace: string) => boolean) {
  return secretRequests(audit)
    .filter(({ objectRef }) => objectRef?.namespace !== 'pullpass')
    .filter(event => !isUsual(event, foreign))
    .map(({ verb, requestURI }) => `${verb} ${requestURI}`)
}

export function secretRequests(audit: AuditEvent[]): AuditEvent[] {
  return audit.filter(
    ({ user, objectRef }) => user.username === service && objectRef?.resource === 'secrets',
  )
}

function isUsual({ verb, requestURI, objectRef }: AuditEvent, foreign: (name: string) => boolean) {
  if (verb === 'list' || verb === 'watch') return requestURI.includes(oneName)
  if (objectRef?.name !== 'pullpass-registry') return false
  if (verb === 'patch' && requestURI.includes('force=true')) {
    return !foreign(objectRef.namespace ?? '')
  }
  return ['get', 'patch', 'delete'].includes(verb)
}

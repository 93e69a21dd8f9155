import type { PullSecretIndex } from '../pull-secret/pull-secret-index.ts'
import { foreign } from './refusal.ts'
import type { TellRefusal } from './tell-refusal.ts'

/**
 * Says, once for each, which opted-in namespaces hold a Secret of our name that somebody else made.
 * The returned function looks at one namespace; it is for all of them at the start, and for each change.
 */
export function createForeignReport(
  index: PullSecretIndex,
  tell: TellRefusal,
): (namespace: string) => void {
  const told = new Set<string>()
  return namespace => {
    const secret = index.secrets.get(namespace)
    const isForeign = secret?.ours === false && index.namespaces.get(namespace) !== undefined
    if (isForeign && !told.has(namespace)) tell(namespace, foreign)
    if (isForeign) told.add(namespace)
    else told.delete(namespace)
  }
}

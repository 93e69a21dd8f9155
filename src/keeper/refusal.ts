import { KubernetesError } from '../kubernetes/client.ts'
import { writeFailure } from '../pull-secret/secret-store.ts'
import { TokenError } from '../registry-token/registry-token.ts'

/** Why a namespace has no pull secret; `message` is fit for people and holds no secret. */
export interface Refusal {
  code: string
  message: string
}

/** When a refused namespace is tried again: after a back-off, or when the environment is back. */
export interface Verdict extends Refusal {
  again: 'never' | 'with_environment' | { initialDelay: number; maxDelay: number }
  retryAfterMs?: number | undefined
  /** Whoever owns the namespace can mend it, and should hear of it there. */
  isTheirs?: boolean
}

/** A Secret of our name that somebody else made. */
export const foreign = {
  code: 'foreign',
  message: 'a Secret of that name exists that pullpass did not make; it is left alone',
  isTheirs: true,
}

const quick = { initialDelay: 500, maxDelay: 30_000 }
const slow = { initialDelay: 10_000, maxDelay: 300_000 }

/**
 * | failure                                            | tried again                        |
 * |----------------------------------------------------|------------------------------------|
 * | the environment: no answer, 5xx, login refused      | when a try of any namespace works  |
 * | the organization: not found, not a member           | slowly                             |
 * | the organization: 429, 5xx                          | quickly, with back-off             |
 * | the API server: namespace gone or ending            | never                              |
 * | the API server: foreign Secret, forbidden, immutable| slowly                             |
 * | the API server: conflict, 429, 5xx, no answer       | quickly, with back-off             |
 * | anything else is a bug                              | slowly                             |
 */
export function judge(error: unknown): Verdict {
  if (error instanceof TokenError) return judgeToken(error)
  if (!(error instanceof KubernetesError)) {
    return { code: 'internal_error', message: 'an internal error, see the log', again: slow }
  }
  const failure = writeFailure(error)
  if (failure === 'gone')
    return { code: failure, message: 'the namespace is ending', again: 'never' }
  if (failure === 'foreign') {
    return { ...foreign, again: slow }
  }
  const { message, retryAfterMs } = error
  if (failure === 'forbidden') return { code: failure, message, again: slow }
  return { code: 'kubernetes_unavailable', message, again: quick, retryAfterMs }
}

function judgeToken({ scope, kind, code, message, retryAfterMs }: TokenError): Verdict {
  if (scope === 'environment') return { code, message, again: 'with_environment' }
  const passing = kind === 'transient'
  return { code, message, again: passing ? quick : slow, retryAfterMs, isTheirs: !passing }
}

/** The namespace asks for an organization that the settings do not let it use. */
export function organizationNotAllowed(message: string): TokenError {
  const code = 'organization_not_allowed'
  return new TokenError(message, { kind: 'permanent', scope: 'organization', code })
}

/** `organization_not_found` as the reason of an event: `OrganizationNotFound`. */
export function eventReason(code: string): string {
  return code.replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

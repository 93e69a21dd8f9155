import { KubernetesError } from '../kubernetes/client.ts'
import { writeFailure } from '../pull-secret/secret-store.ts'
import { TokenError } from '../registry-token/registry-token.ts'
import { TooManyChanges } from './budgets.ts'

/** Why a namespace has no pull secret; `message` is fit for people and holds no secret. */
export interface Refusal {
  code: string
  message: string
  /** The same for the administrator of the platform, and of no namespace: absent for other failures. */
  platform?: string | undefined
}

/**
 * When a refused namespace is tried again: after a back-off, when the environment is back, or after
 * `retryAfterMs`.
 */
export interface Verdict extends Refusal {
  again: 'never' | 'with_environment' | 'later' | { initialDelay: number; maxDelay: number }
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
 * | failure                                              | tried again               | told to       |
 * |------------------------------------------------------|---------------------------|---------------|
 * | the environment: no answer, 5xx, login refused       | when a try of any         | the platform  |
 * |                                                      | namespace works           |               |
 * | the organization: not found, not a member, forbidden | slowly                    | the namespace |
 * | the organization: 429, 5xx                           | quickly, with back-off    | pods only     |
 * | the API server: namespace gone or ending             | never                     | nobody        |
 * | the API server: a right is missing                   | slowly                    | the platform  |
 * | the API server: foreign Secret, quota, policy        | slowly                    | the namespace |
 * | an immutable Secret that has to change               | slowly                    | the namespace |
 * | the API server: conflict, 429, 5xx, no answer        | quickly, with back-off    | pods only     |
 * | a budget of the namespace is used up                 | when it allows it         | the namespace |
 * | anything else is a bug                               | slowly                    | the log       |
 *
 * A change that matters to the namespace (`refusals.ts`) ends a back-off; a budget still counts.
 */
export function judge(error: unknown): Verdict {
  if (error instanceof TokenError) return judgeToken(error)
  if (error instanceof KubernetesError) return judgeWrite(error)
  if (error instanceof TooManyChanges) {
    const { message, retryAfterMs } = error
    return { code: 'too_many_changes', message, again: 'later', retryAfterMs, isTheirs: true }
  }
  if (error instanceof ImmutableSecret) {
    return { code: 'immutable', message: error.message, again: slow, isTheirs: true }
  }
  return { code: 'internal_error', message: 'an internal error, see the log', again: slow }
}

function judgeWrite(error: KubernetesError): Verdict {
  const failure = writeFailure(error)
  if (failure === 'gone')
    return { code: failure, message: 'the namespace is ending', again: 'never' }
  if (failure === 'foreign') {
    return { ...foreign, again: slow }
  }
  const { message, retryAfterMs } = error
  if (failure === 'forbidden') {
    return { code: failure, message, platform: withoutNamespace(message), again: slow }
  }
  if (failure === 'refused') return { code: failure, message, again: slow, isTheirs: true }
  return { code: 'kubernetes_unavailable', message, again: quick, retryAfterMs }
}

/** A missing right is the same in every namespace. */
function withoutNamespace(message: string): string {
  return message
    .replace(/^cannot (\w+) (\w+) \S+: /, 'cannot $1 a $2: ')
    .replace(/ in the namespace "[^"]*"/, '')
    .replace(/(resources: \["namespaces"\]), resourceNames: \["[^"]*"\]/, '$1')
}

/** The Secret of the namespace has to change and cannot. */
export class ImmutableSecret extends Error {
  override readonly name = 'ImmutableSecret'

  constructor() {
    super('the Secret is immutable and has to change: delete it, and pullpass creates it again')
  }
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

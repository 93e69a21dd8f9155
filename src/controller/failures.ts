import { ExponentialBackoff, type IBackoff } from 'cockatiel'
import { TokenError } from '../issuer/issuer.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import { writeFailure } from '../pull-secret/store.ts'
import { TooManyChanges } from './budgets.ts'

/** Which namespaces are refused at the moment, and when each is tried again. */
export interface Failures {
  get(namespace: string): Failure | undefined
  all(): Failure[]
  /** Remembers and arranges the next try; true where this reason is new for the namespace. */
  refuse(namespace: string, policy: RetryPolicy): boolean
  clear(namespace: string): void
  /** The namespace changed. True: the change matters, and ended its back-off. */
  reconsider(namespace: string): boolean
  /** The environment answered somebody: all that waited for it are tried again. */
  environmentAnswers(): void
  /** Aborted as soon as the namespace is refused. */
  whenFailed(namespace: string): AbortSignal
  clearAll(): void
}

interface RetryState extends Failure {
  /** What the namespace and its Secret were like; undefined: no change ends the wait. */
  digest: string | undefined
  isTheirs: boolean
  delay: IBackoff<unknown> | undefined
  timer: NodeJS.Timeout | undefined
}

interface State {
  retryStates: Map<string, RetryState>
  waitingForEnvironment: Set<string>
  waiting: Map<string, AbortController>
  probe: NodeJS.Timeout | undefined
  probeMs: number
  retry: (namespace: string) => void
  digest: (namespace: string) => string
}

/** Nobody is believed who asks for a longer pause. */
const longestWaitMs = 300_000

/**
 * A namespace with a failure of its own backs off by itself. Those that the environment keeps
 * waiting wait together, and one of them is tried every `probeMs`: however many wait, an environment
 * that is down gets one question at a time (and the breaker thins these out), and a
 * refused login costs nothing at all, since the client asks again only with another credential.
 */
export function createFailures(options: {
  retry: (namespace: string) => void
  /** Of all that matters about a namespace: another digest ends its back-off. */
  digest: (namespace: string) => string
  probeMs?: number
}): Failures {
  const { retry, digest, probeMs = 1000 } = options
  const state: State = {
    retryStates: new Map(),
    waitingForEnvironment: new Set(),
    waiting: new Map(),
    probe: undefined,
    probeMs,
    retry,
    digest,
  }
  return {
    get: namespace => state.retryStates.get(namespace),
    all: () => [...state.retryStates.values()],
    refuse: (namespace, policy) => refuse(state, namespace, policy),
    whenFailed: namespace => whenFailed(state, namespace),
    clear: namespace => {
      forget(state, namespace)
      state.waiting.delete(namespace)
    },
    reconsider: namespace => {
      const before = state.retryStates.get(namespace)?.digest
      const matters = before !== undefined && before !== digest(namespace)
      if (matters) forget(state, namespace)
      return matters
    },
    environmentAnswers: () => {
      const everyone = [...state.waitingForEnvironment]
      state.waitingForEnvironment.clear()
      for (const namespace of everyone) retry(namespace)
    },
    clearAll: () => clearAll(state),
  }
}

function refuse(state: State, namespace: string, policy: RetryPolicy): boolean {
  const before = state.retryStates.get(namespace)
  forget(state, namespace)
  if (policy.again === 'never') return false
  const { again } = policy
  const { code, message, platform, isTheirs = false } = reasonFor(policy, before)
  const digest = again === 'with_environment' ? undefined : state.digest(namespace)
  const arranged = arrange(state, namespace, policy, before)
  state.retryStates.set(namespace, { code, message, platform, isTheirs, digest, ...arranged })
  state.waiting.get(namespace)?.abort()
  state.waiting.delete(namespace)
  return before?.code !== code
}

/** A budget that failures used up says less than the failure, which nothing has changed. */
function reasonFor(policy: RetryPolicy, before: RetryState | undefined): RetryPolicy | RetryState {
  const isTold = before?.isTheirs && before.code !== policy.code
  return policy.again === 'later' && isTold ? before : policy
}

function arrange(
  state: State,
  namespace: string,
  { code, again, retryAfterMs = 0 }: RetryPolicy,
  before: RetryState | undefined,
): Pick<RetryState, 'delay' | 'timer'> {
  const retry = (ms: number) =>
    setTimeout(() => state.retry(namespace), Math.min(ms, longestWaitMs)).unref()
  if (again === 'later') return { delay: before?.delay, timer: retry(retryAfterMs) }
  if (typeof again === 'string') {
    state.waitingForEnvironment.add(namespace)
    if (state.probe === undefined) armProbe(state)
    return { delay: before?.delay, timer: undefined }
  }
  const former = before?.code === code ? before.delay : undefined
  const delay = former?.next(undefined) ?? new ExponentialBackoff(again).next()
  return { delay, timer: retry(Math.max(delay.duration, retryAfterMs)) }
}

function armProbe(state: State): void {
  const ms = state.probeMs * (0.8 + 0.4 * Math.random())
  state.probe =
    state.waitingForEnvironment.size === 0 ? undefined : setTimeout(() => probe(state), ms).unref()
}

function probe(state: State): void {
  const [first] = state.waitingForEnvironment
  if (first !== undefined) state.retry(first)
  armProbe(state)
}

function forget({ retryStates, waitingForEnvironment }: State, namespace: string): void {
  clearTimeout(retryStates.get(namespace)?.timer)
  retryStates.delete(namespace)
  waitingForEnvironment.delete(namespace)
}

function clearAll(state: State): void {
  for (const namespace of [...state.retryStates.keys()]) forget(state, namespace)
  clearTimeout(state.probe)
  state.probe = undefined
}

function whenFailed({ waiting }: State, namespace: string): AbortSignal {
  const controller = waiting.get(namespace) ?? new AbortController()
  waiting.set(namespace, controller)
  return controller.signal
}

/** Why a namespace has no pull secret; `message` is fit for people and holds no secret. */
interface Failure {
  code: string
  message: string
  /** The same for the administrator of the platform, and of no namespace: absent for other failures. */
  platform?: string | undefined
}

/**
 * When a refused namespace is tried again: after a back-off, when the environment is back, or after
 * `retryAfterMs`.
 */
export interface RetryPolicy extends Failure {
  again: 'never' | 'with_environment' | 'later' | { initialDelay: number; maxDelay: number }
  retryAfterMs?: number | undefined
  /** Whoever owns the namespace can mend it, and should hear of it there. */
  isTheirs?: boolean
}

/** A Secret of our name that somebody else made. */
export const notManaged = {
  code: 'not_managed',
  message: 'a Secret of that name exists that pullpass did not make; it is left alone',
  isTheirs: true,
}

const quick = { initialDelay: 500, maxDelay: 30_000 }
const slow = { initialDelay: 10_000, maxDelay: 300_000 }

/**
 * | failure                                                                 | tried again            | reported to   |
 * |-------------------------------------------------------------------------|------------------------|---------------|
 * | the environment: no answer, 5xx, login refused                          | when a try of any      | the platform  |
 * |                                                                         | namespace works        |               |
 * | the organization: not found, not a member, forbidden                    | slowly                 | the namespace |
 * | the organization: 429, 5xx                                              | quickly, with back-off | pods only     |
 * | the API server: namespace gone or ending                                | never                  | nobody        |
 * | the API server: a right is missing                                      | slowly                 | the platform  |
 * | the API server: a Secret that is not managed by pullpass, quota, policy | slowly                 | the namespace |
 * | an immutable Secret that has to change                                  | slowly                 | the namespace |
 * | the API server: conflict, 429, 5xx, no answer                           | quickly, with back-off | pods only     |
 * | a budget of the namespace is used up                                    | when it allows it      | the namespace |
 * | anything else is a bug                                                  | slowly                 | the log       |
 *
 * A change that matters to the namespace (`failures.ts`) ends a back-off; a budget still counts.
 */
export function classify(error: unknown): RetryPolicy {
  if (error instanceof TokenError) return classifyToken(error)
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

function judgeWrite(error: KubernetesError): RetryPolicy {
  const failure = writeFailure(error)
  if (failure === 'gone')
    return { code: failure, message: 'the namespace is ending', again: 'never' }
  if (failure === 'not_managed') {
    return { ...notManaged, again: slow }
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

function classifyToken({ scope, kind, code, message, retryAfterMs }: TokenError): RetryPolicy {
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

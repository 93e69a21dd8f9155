import { ExponentialBackoff, type IBackoff } from 'cockatiel'
import type { Failure, FailureStore } from '../failure.ts'
import type { RetryPolicy } from './failures.ts'

/** Which namespaces are refused at the moment, and when each is tried again. */
export interface Failures {
  /** Why the last run of the namespace failed. */
  get(namespace: string): Failure | undefined
  /** One for each refused namespace. */
  all(): Failure[]
  /**
   * What keeps the namespace from its Secret, as far as this replica knows. What all replicas know
   * comes first, so that they give the same reason.
   */
  reason(namespace: string): Failure | undefined
  /** Remembers and arranges the next try; true where this failure is new for its subject. */
  refuse(namespace: string, policy: RetryPolicy): boolean
  /** A run of the namespace worked; `acted`: it did something, so others may go on too. */
  succeeded(namespace: string, acted: boolean): void
  /** A request that is of no namespace worked: those that wait for the environment go on. */
  environmentAnswers(): void
  /** Other credentials: those that wait for the environment or for an organization go on. */
  credentialsChanged(): void
  /** The namespace is gone, or is another one of the same name. */
  clear(namespace: string): void
  /** The namespace changed. True: the change matters, and ended its back-off. */
  reconsider(namespace: string): boolean
  /** The issuer's word on the environment: it counts while no namespace waits for the environment. */
  environmentIs(failure: Failure | undefined): void
  /** Forgets organizations that the leader before had trouble with and no namespace waits for now. */
  forgetInherited(): void
  /** A term has ended. What all replicas share stays until the next leader says otherwise. */
  clearAll(): void
}

interface Dependencies {
  store: FailureStore
  retry: (namespace: string) => void
  /** Of all that matters about a namespace: another digest ends its back-off. */
  digest: (namespace: string) => string
  /** The organization that a namespace uses; undefined: none that the settings allow. */
  organizationOf: (namespace: string) => string | undefined
  now: () => Date
}

/** A namespace that is refused. */
interface Refusal {
  failure: Failure
  /** What the namespace and its Secret were like. */
  digest: string
  /** Waits with others for the same; undefined: for itself. */
  group: Group | undefined
  delay: IBackoff<unknown> | undefined
  timer: NodeJS.Timeout | undefined
}

/** Namespaces that wait for the same: one of them at a time tries for all. */
interface Group {
  key: string
  failure: Failure
  waiting: Set<string>
  delay: IBackoff<unknown>
  timer: NodeJS.Timeout | undefined
  /** When the timer ends, in epoch milliseconds. */
  dueAt: number
}

interface State extends Dependencies {
  refusals: Map<string, Refusal>
  groups: Map<string, Group>
}

/** A longer pause that the other side asks for is shortened to this. */
const longestWaitMs = 300_000

/**
 * The back-offs. A namespace with a failure of its own backs off by itself. Those that wait for the
 * environment, for an organization or for a right have one back-off together, and one of them tries
 * at a time: however many wait, there is one question at a time. When it works, all go on.
 */
export function createFailures(dependencies: Dependencies): Failures {
  const { store, digest, organizationOf } = dependencies
  const state: State = { ...dependencies, refusals: new Map(), groups: new Map() }
  const { refusals, groups } = state
  return {
    get: namespace => refusals.get(namespace)?.failure,
    all: () => [...refusals.values()].map(({ failure }) => failure),
    reason: namespace =>
      store.get('environment') ??
      store.get('organization', organizationOf(namespace) ?? '') ??
      refusals.get(namespace)?.failure,
    refuse: (namespace, policy) => refuse(state, namespace, policy),
    succeeded: (namespace, acted) => succeeded(state, namespace, acted),
    environmentAnswers: () => release(state, 'environment/'),
    credentialsChanged: () => {
      for (const key of [...groups.keys()].filter(isOfIssuer)) release(state, key)
    },
    clear: namespace => forget(state, namespace),
    reconsider: namespace => {
      const before = refusals.get(namespace)
      const matters = before !== undefined && before.digest !== digest(namespace)
      if (!matters || before.failure.scope === 'environment') return false
      forget(state, namespace)
      return true
    },
    environmentIs: failure => {
      if (groups.has('environment/')) return
      if (failure === undefined) store.clear('environment')
      else store.set(failure)
    },
    forgetInherited: () => {
      for (const { scope, subject } of store.all('organization')) {
        if (!groups.has(`${scope}/${subject}`)) store.clear(scope, subject)
      }
    },
    clearAll: () => {
      for (const namespace of [...refusals.keys()]) forget(state, namespace)
    },
  }
}

function refuse(state: State, namespace: string, policy: RetryPolicy): boolean {
  const before = state.refusals.get(namespace)
  const { again } = policy
  if (again === 'never') {
    forget(state, namespace)
    return false
  }
  const failure = failureOf(state, namespace, policy, before)
  const digest = state.digest(namespace)
  leave(state, namespace, failure)
  const refusal: Refusal = { failure, digest, group: undefined, delay: undefined, timer: undefined }
  state.refusals.set(namespace, refusal)
  const isNew = state.store.set(failure)
  if (failure.scope === 'namespace' || again === 'later') {
    arrangeOwn(state, namespace, policy, { refusal, before })
  } else {
    refusal.group = join(state, namespace, failure, { again, retryAfterMs: policy.retryAfterMs })
  }
  return isNew
}

function succeeded(state: State, namespace: string, acted: boolean): void {
  const { group } = state.refusals.get(namespace) ?? {}
  forget(state, namespace)
  if (!acted) return
  const organization = state.organizationOf(namespace)
  for (const key of [group?.key, 'environment/', `organization/${organization}`]) {
    release(state, key)
  }
}

function failureOf(
  { organizationOf }: State,
  namespace: string,
  policy: RetryPolicy,
  before: Refusal | undefined,
): Failure {
  const { scope, code, message, passing, again } = policy
  // A limit that failures used up says less than the failure, which nothing has changed.
  const isKnown = before !== undefined && !before.failure.passing && before.failure.code !== code
  if (again === 'later' && isKnown && before.failure.scope === 'namespace') return before.failure
  const subjects = {
    environment: '',
    cluster: message,
    organization: policy.organization ?? organizationOf(namespace) ?? '',
    namespace,
  }
  return { scope, subject: subjects[scope], code, message, passing, retryAt: undefined }
}

/** Ends what was arranged before; what is wrong stays known if `next` is about the same. */
function leave(state: State, namespace: string, next: Failure | undefined): void {
  const before = state.refusals.get(namespace)
  if (before === undefined) return
  clearTimeout(before.timer)
  state.refusals.delete(namespace)
  const { scope, subject } = before.failure
  const stays = next?.scope === scope && next.subject === subject
  if (stays) return
  const { group } = before
  group?.waiting.delete(namespace)
  if (group === undefined) state.store.clear(scope, subject)
  else if (group.waiting.size === 0) end(state, group)
}

function forget(state: State, namespace: string): void {
  leave(state, namespace, undefined)
}

function arrangeOwn(
  state: State,
  namespace: string,
  { again, code, retryAfterMs = 0 }: RetryPolicy,
  { refusal, before }: { refusal: Refusal; before: Refusal | undefined },
): void {
  let ms = retryAfterMs
  if (typeof again === 'object') {
    const former = before?.failure.code === code ? before.delay : undefined
    refusal.delay = former?.next(undefined) ?? new ExponentialBackoff(again).next()
    ms = Math.max(refusal.delay.duration, retryAfterMs)
  } else refusal.delay = before?.delay
  ms = Math.min(ms, longestWaitMs)
  state.store.set({ ...refusal.failure, retryAt: new Date(state.now().getTime() + ms) })
  refusal.timer = setTimeout(() => state.retry(namespace), ms).unref()
}

type BackOff = Exclude<RetryPolicy['again'], 'never' | 'later'>

function join(
  state: State,
  namespace: string,
  failure: Failure,
  { again, retryAfterMs = 0 }: { again: BackOff; retryAfterMs: number | undefined },
): Group {
  const key = `${failure.scope}/${failure.subject}`
  const known = state.groups.get(key)
  const isSame = known?.failure.code === failure.code
  const group: Group = known ?? {
    key,
    failure,
    waiting: new Set(),
    delay: new ExponentialBackoff(again).next(),
    timer: undefined,
    dueAt: 0,
  }
  state.groups.set(key, group)
  // At the end: the next try is another namespace's.
  group.waiting.delete(namespace)
  group.waiting.add(namespace)
  if (known !== undefined && !isSame) group.delay = new ExponentialBackoff(again).next()
  group.failure = failure
  const pauseMs = Math.min(Math.max(isSame ? 0 : group.delay.duration, retryAfterMs), longestWaitMs)
  const dueAt = state.now().getTime() + pauseMs
  if (!isSame || dueAt > group.dueAt) arm(state, group, pauseMs)
  return group
}

function arm(state: State, group: Group, ms: number): void {
  clearTimeout(group.timer)
  group.dueAt = state.now().getTime() + ms
  state.store.set({ ...group.failure, retryAt: new Date(group.dueAt) })
  group.timer = setTimeout(() => {
    group.delay = group.delay.next(undefined)
    arm(state, group, group.delay.duration)
    const [first] = group.waiting
    if (first !== undefined) state.retry(first)
  }, ms).unref()
}

function end({ groups, store }: State, group: Group): void {
  clearTimeout(group.timer)
  groups.delete(group.key)
  store.clear(group.failure.scope, group.failure.subject)
}

/** A group that waits for what the issuer does. */
function isOfIssuer(key: string): boolean {
  return key.startsWith('environment/') || key.startsWith('organization/')
}

/** What they waited for works: all of them are tried again. */
function release(state: State, key = ''): void {
  const group = state.groups.get(key)
  if (group === undefined) return
  const waiting = [...group.waiting]
  for (const namespace of waiting) state.refusals.delete(namespace)
  end(state, group)
  for (const namespace of waiting) state.retry(namespace)
}

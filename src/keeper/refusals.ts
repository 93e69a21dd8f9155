import { ExponentialBackoff, type IBackoff } from 'cockatiel'
import type { Refusal, Verdict } from './refusal.ts'

/** Which namespaces are refused at the moment, and when each is tried again. */
export interface Refusals {
  get(namespace: string): Refusal | undefined
  all(): Refusal[]
  /** Remembers and arranges the next try; true where this reason is new for the namespace. */
  refuse(namespace: string, verdict: Verdict): boolean
  clear(namespace: string): void
  /** The namespace changed. True: the change matters, and ended its back-off. */
  reconsider(namespace: string): boolean
  /** The environment answered somebody: all that waited for it are tried again. */
  environmentAnswers(): void
  /** Aborted as soon as the namespace is refused. */
  whenRefused(namespace: string): AbortSignal
  clearAll(): void
}

interface Standing extends Refusal {
  /** What the namespace and its Secret were like; undefined: no change ends the wait. */
  digest: string | undefined
  isTheirs: boolean
  delay: IBackoff<unknown> | undefined
  timer: NodeJS.Timeout | undefined
}

interface State {
  standing: Map<string, Standing>
  parked: Set<string>
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
 * waiting are parked together, and one of them is tried every `probeMs`: however many wait, an
 * environment that is down gets one question at a time (and the breaker thins these out), and a
 * refused login costs nothing at all, since the client asks again only with another credential.
 */
export function createRefusals(options: {
  retry: (namespace: string) => void
  /** Of all that matters about a namespace: another digest ends its back-off. */
  digest: (namespace: string) => string
  probeMs?: number
}): Refusals {
  const { retry, digest, probeMs = 1000 } = options
  const state: State = {
    standing: new Map(),
    parked: new Set(),
    waiting: new Map(),
    probe: undefined,
    probeMs,
    retry,
    digest,
  }
  return {
    get: namespace => state.standing.get(namespace),
    all: () => [...state.standing.values()],
    refuse: (namespace, verdict) => refuse(state, namespace, verdict),
    whenRefused: namespace => whenRefused(state, namespace),
    clear: namespace => {
      forget(state, namespace)
      state.waiting.delete(namespace)
    },
    reconsider: namespace => {
      const before = state.standing.get(namespace)?.digest
      const matters = before !== undefined && before !== digest(namespace)
      if (matters) forget(state, namespace)
      return matters
    },
    environmentAnswers: () => {
      const everyone = [...state.parked]
      state.parked.clear()
      for (const namespace of everyone) retry(namespace)
    },
    clearAll: () => clearAll(state),
  }
}

function refuse(state: State, namespace: string, verdict: Verdict): boolean {
  const before = state.standing.get(namespace)
  forget(state, namespace)
  if (verdict.again === 'never') return false
  const { again } = verdict
  const { code, message, platform, isTheirs = false } = reasonFor(verdict, before)
  const digest = again === 'with_environment' ? undefined : state.digest(namespace)
  const arranged = arrange(state, namespace, verdict, before)
  state.standing.set(namespace, { code, message, platform, isTheirs, digest, ...arranged })
  state.waiting.get(namespace)?.abort()
  state.waiting.delete(namespace)
  return before?.code !== code
}

/** A budget that failures used up says less than the failure, which nothing has changed. */
function reasonFor(verdict: Verdict, before: Standing | undefined): Verdict | Standing {
  const isTold = before?.isTheirs && before.code !== verdict.code
  return verdict.again === 'later' && isTold ? before : verdict
}

function arrange(
  state: State,
  namespace: string,
  { code, again, retryAfterMs = 0 }: Verdict,
  before: Standing | undefined,
): Pick<Standing, 'delay' | 'timer'> {
  const retry = (ms: number) =>
    setTimeout(() => state.retry(namespace), Math.min(ms, longestWaitMs)).unref()
  if (again === 'later') return { delay: before?.delay, timer: retry(retryAfterMs) }
  if (typeof again === 'string') {
    state.parked.add(namespace)
    if (state.probe === undefined) armProbe(state)
    return { delay: before?.delay, timer: undefined }
  }
  const former = before?.code === code ? before.delay : undefined
  const delay = former?.next(undefined) ?? new ExponentialBackoff(again).next()
  return { delay, timer: retry(Math.max(delay.duration, retryAfterMs)) }
}

function armProbe(state: State): void {
  const ms = state.probeMs * (0.8 + 0.4 * Math.random())
  state.probe = state.parked.size === 0 ? undefined : setTimeout(() => probe(state), ms).unref()
}

function probe(state: State): void {
  const [first] = state.parked
  if (first !== undefined) state.retry(first)
  armProbe(state)
}

function forget({ standing, parked }: State, namespace: string): void {
  clearTimeout(standing.get(namespace)?.timer)
  standing.delete(namespace)
  parked.delete(namespace)
}

function clearAll(state: State): void {
  for (const namespace of [...state.standing.keys()]) forget(state, namespace)
  clearTimeout(state.probe)
  state.probe = undefined
}

function whenRefused({ waiting }: State, namespace: string): AbortSignal {
  const controller = waiting.get(namespace) ?? new AbortController()
  waiting.set(namespace, controller)
  return controller.signal
}

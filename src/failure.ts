/** Where a bug is, without its message: that could quote anything. */
export function framesOf(error: unknown): string[] {
  const lines = error instanceof Error ? (error.stack ?? '').split('\n') : []
  return [
    error instanceof Error ? error.name : typeof error,
    ...lines.filter(line => line.startsWith('    at ')).map(line => line.trim()),
  ]
}

/** The longest text that comes from a tenant or from another system and is quoted whole. */
const longest = 100

/** A text as it may stand in a log line, an event, a warning or an error message. */
export function clip(text: string, length = longest): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`
}

/**
 * What a failure concerns:
 *
 * | scope        | subject                                                     | known to         |
 * |--------------|-------------------------------------------------------------|------------------|
 * | environment  | none                                                        | every replica    |
 * | organization | the organization                                            | every replica    |
 * | cluster      | the message: a missing right is the same in each namespace  | the leader       |
 * | namespace    | the namespace                                               | the leader       |
 */
export type FailureScope = 'environment' | 'organization' | 'cluster' | 'namespace'

/** Something that does not work now. `message` is for people and holds no secret. */
export interface Failure {
  scope: FailureScope
  subject: string
  /** A short code for metrics and logs: `login_refused`, `organization_not_found`, ... */
  code: string
  message: string
  /** It can end without a change by a person. */
  passing: boolean
  /** The next try; undefined: only a change of something leads to one. */
  retryAt: Date | undefined
}

/** All that is wrong now, in one place: log, metrics, events, `/readyz` and warnings read it. */
export interface FailureStore {
  /** True: this is new for its subject. */
  set(failure: Failure): boolean
  clear(scope: FailureScope, subject?: string): void
  get(scope: FailureScope, subject?: string): Failure | undefined
  all(...scopes: FailureScope[]): Failure[]
  /** What all replicas share becomes exactly this: what the leader wrote on the Lease. */
  replaceShared(failures: readonly Failure[]): void
  /** Calls the listener after each change, until the result is called. */
  onChange(listener: () => void): () => void
}

const longestMessage = 600
/** An annotation has room for them, whatever the number of organizations. */
const mostShared = 100
const sharedScopes: readonly FailureScope[] = ['environment', 'organization']

/** Remembers each failure until it is cleared. */
export function createFailureStore(): FailureStore {
  const known = new Map<string, Failure>()
  const listeners = new Set<() => void>()
  const changed = () => {
    for (const listener of listeners) listener()
  }
  const set = (given: Failure): boolean => {
    const failure = { ...given, message: clip(given.message, longestMessage) }
    const before = known.get(keyOf(failure))
    const same = before !== undefined && saysTheSame(before, failure)
    // The first text stays, so that all replicas give the same.
    known.set(keyOf(failure), same ? { ...failure, message: before.message } : failure)
    if (!same) changed()
    return !same
  }
  const all = (...scopes: FailureScope[]) =>
    [...known.values()].filter(({ scope }) => scopes.length === 0 || scopes.includes(scope))
  const clear = (scope: FailureScope, subject = '') => {
    if (known.delete(keyOf({ scope, subject }))) changed()
  }
  return {
    set,
    clear,
    all,
    get: (scope, subject = '') => known.get(keyOf({ scope, subject })),
    replaceShared: failures => {
      const kept = new Set(failures.map(keyOf))
      for (const failure of all(...sharedScopes)) {
        if (!kept.has(keyOf(failure))) clear(failure.scope, failure.subject)
      }
      for (const failure of failures) set(failure)
    },
    onChange: listener => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

function keyOf({ scope, subject }: Pick<Failure, 'scope' | 'subject'>): string {
  return `${scope}/${subject}`
}

/** The same code and text, but for the id of the request that failed. */
function saysTheSame(one: Failure, other: Failure): boolean {
  const text = ({ message }: Failure) => message.replace(/, request [\w:.-]+/, '')
  return one.code === other.code && text(one) === text(other)
}

/** What all replicas share, as text for the Lease; undefined: nothing is wrong. */
export function writeShared(store: Pick<FailureStore, 'all'>): string | undefined {
  const failures = store.all(...sharedScopes).slice(0, mostShared)
  if (failures.length === 0) return undefined
  return JSON.stringify(
    failures.map(({ scope, subject, code, message, passing }) => ({
      scope,
      subject,
      code,
      message,
      passing,
    })),
  )
}

/** Reads that text. What is no failure in it is left out. */
export function readShared(text: string | undefined): Failure[] {
  try {
    const found: unknown = JSON.parse(text ?? '[]')
    return Array.isArray(found) ? found.slice(0, mostShared).flatMap(readOne) : []
  } catch {
    return []
  }
}

function readOne(value: unknown): Failure[] {
  const { scope, subject, code, message, passing } = (value ?? {}) as Partial<Failure>
  const texts = [subject, code, message].every(text => typeof text === 'string')
  if (scope === undefined || !sharedScopes.includes(scope) || !texts) return []
  return [
    {
      scope,
      subject: subject as string,
      code: code as string,
      message: message as string,
      passing: passing === true,
      retryAt: undefined,
    },
  ]
}

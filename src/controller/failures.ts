import type { Failure, FailureScope } from '../failure.ts'
import { TokenError } from '../issuer/issuer.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import { notManaged } from '../pull-secret/pull-secret.ts'
import { writeFailure } from '../pull-secret/store.ts'
import { TooManyChanges } from './budgets.ts'

/** A pause that grows from `initialDelay` to `maxDelay`. */
interface BackOff {
  initialDelay: number
  maxDelay: number
}

/** When the next try comes; `later`: when the failure itself says. */
type Again = 'never' | 'later' | BackOff

/** Where it is reported: an event in one of these namespaces, a warning of pods, or the log only. */
type Reported = 'release namespace' | 'namespace' | 'pods only' | 'log' | 'nobody'

/** One class of failures. */
interface Row {
  failure: string
  is: (error: unknown) => boolean
  scope: FailureScope
  again: Again
  /** It can end without a change by a person. */
  passing: boolean
  reported: Reported
  /** Where the error itself has none. */
  code?: string
}

const isToken = (error: unknown): error is TokenError => error instanceof TokenError
const isPassing = (error: unknown) => isToken(error) && error.kind === 'transient'
const isOfEnvironment = (error: unknown) => isToken(error) && concernsEverybody(error)
const isWrite = (error: unknown, ...meanings: string[]) =>
  error instanceof KubernetesError && meanings.includes(writeFailure(error))

const probe = { initialDelay: 1000, maxDelay: 1000 }
const quick = { initialDelay: 500, maxDelay: 30_000 }
const slow = { initialDelay: 10_000, maxDelay: 300_000 }
/** One namespace tries for all of the organization or the cluster, and the breaker thins this out. */
const quickForMany = { initialDelay: 500, maxDelay: 1000 }
const slowForMany = { initialDelay: 10_000, maxDelay: 60_000 }

/*
 * The one table of failures and retries; the first row that fits counts. `npm run readme` copies it
 * to CONTRIBUTING.md. Each subject of a scope has one back-off: for an environment, an organization
 * and a right one waiting namespace tries for all (retries.ts).
 */
// biome-ignore format: a table is read by its columns
const table: readonly Row[] = [
  { failure: 'the limit of mints or revocations in a minute is reached', is: error => isToken(error) && limitCodes.has(error.code), scope: 'namespace', again: 'later', passing: true, reported: 'pods only' },
  { failure: 'a login is refused, or the settings of the environment are wrong', is: error => isOfEnvironment(error) && !isPassing(error), scope: 'environment', again: probe, passing: false, reported: 'release namespace' },
  { failure: 'the environment cannot be reached, or gives no logins', is: isOfEnvironment, scope: 'environment', again: probe, passing: true, reported: 'release namespace' },
  { failure: 'an annotation asks for an organization that the settings do not allow', is: error => isToken(error) && error.code === notAllowed, scope: 'namespace', again: slow, passing: false, reported: 'namespace' },
  { failure: 'requests for an organization: 429, 5xx, no answer', is: isPassing, scope: 'organization', again: quickForMany, passing: true, reported: 'release namespace' },
  { failure: 'an organization is not found, or the user may not use it', is: isToken, scope: 'organization', again: slowForMany, passing: false, reported: 'release namespace' },
  { failure: 'API server: the namespace is gone or being deleted', is: error => isWrite(error, 'gone'), scope: 'namespace', again: 'never', passing: true, reported: 'nobody', code: 'gone' },
  { failure: 'API server: a right is missing', is: error => isWrite(error, 'forbidden'), scope: 'cluster', again: slowForMany, passing: false, reported: 'release namespace', code: 'forbidden' },
  { failure: 'the Secret is not managed by pullpass', is: error => error instanceof NotManaged || isWrite(error, 'not_managed'), scope: 'namespace', again: slow, passing: false, reported: 'namespace', code: 'not_managed' },
  { failure: 'another controller sets our label on the Secret to another value', is: error => error instanceof Contested, scope: 'namespace', again: slow, passing: false, reported: 'namespace', code: 'contested' },
  { failure: 'the Secret is immutable and has to change', is: error => error instanceof ImmutableSecret, scope: 'namespace', again: slow, passing: false, reported: 'namespace', code: 'immutable' },
  { failure: 'API server: a quota or a policy refuses the Secret', is: error => isWrite(error, 'refused'), scope: 'namespace', again: slow, passing: false, reported: 'namespace', code: 'refused' },
  { failure: 'API server: conflict, 429, 5xx, no answer', is: error => error instanceof KubernetesError, scope: 'namespace', again: quick, passing: true, reported: 'pods only', code: 'kubernetes_unavailable' },
  { failure: 'a limit of the namespace is reached', is: error => error instanceof TooManyChanges, scope: 'namespace', again: 'later', passing: true, reported: 'namespace', code: 'too_many_changes' },
]
const bug: Row = {
  failure: 'anything else: a bug',
  is: () => true,
  scope: 'namespace',
  again: slow,
  passing: true,
  reported: 'log',
  code: 'internal_error',
}

/** What a failed run of a namespace means: the failure, and the row of the table. */
export interface RetryPolicy {
  scope: FailureScope
  code: string
  /** For people. */
  message: string
  passing: boolean
  /** The organization; undefined: the one that the namespace uses. */
  organization: string | undefined
  again: Again
  /**
   * A longer pause that the other side asks for. None for the environment: the issuer sends no
   * request before its time, but has no timer, so that it is called again and again.
   */
  retryAfterMs: number | undefined
  reported: Reported
}

/** The issuer's problem, where it concerns the environment as a whole. */
export function environmentFailure(problem: TokenError | undefined): Failure | undefined {
  if (problem === undefined) return undefined
  const { scope, code, message, passing } = classify(problem)
  const isOfAll = scope === 'environment'
  return isOfAll ? { scope, subject: '', code, message, passing, retryAt: undefined } : undefined
}

/** Finds the row of the table. What it says never holds a secret. */
export function classify(error: unknown): RetryPolicy {
  const { scope, again, passing, reported, code } = table.find(row => row.is(error)) ?? bug
  const known = error as { code?: string; organization?: string; retryAfterMs?: number }
  return {
    scope,
    code: code ?? known.code ?? bug.code ?? '',
    message: messageOf(error, scope, code),
    passing,
    organization: known.organization,
    again,
    retryAfterMs: scope === 'environment' ? undefined : known.retryAfterMs,
    reported,
  }
}

function messageOf(error: unknown, scope: FailureScope, code: string | undefined): string {
  if (code === bug.code) return 'an internal error, see the log'
  if (code === 'not_managed') return notManaged
  const { message } = error as Error
  return scope === 'cluster' ? withoutNamespace(message) : message
}

/**
 * Login, discovery and the connection to the environment concern everybody. A failed request for an
 * organization concerns only that organization, even if others fail too.
 */
function concernsEverybody({ scope, kind, request, code }: TokenError): boolean {
  if (scope === 'organization') return false
  return kind !== 'transient' || request === 'login' || wayCodes.has(code)
}

/** No connection came about, so the organization has no part in it. */
const wayCodes = new Set(['unknown_host', 'untrusted_certificate', 'unreachable', 'ca_unusable'])

/** A missing right is the same in every namespace. */
function withoutNamespace(message: string): string {
  return message
    .replace(/^cannot (\w+) (\w+) \S+: /, 'cannot $1 a $2: ')
    .replace(/ in the namespace "[^"]*"/, '')
    .replace(/(resources: \["namespaces"\]), resourceNames: \["[^"]*"\]/, '$1')
}

/** The namespace has such a Secret, which is left alone. */
export class NotManaged extends Error {
  override readonly name = 'NotManaged'
}

/** Two controllers set the same field of the Secret. Ours gives in: nothing is forced. */
export class Contested extends Error {
  override readonly name = 'Contested'

  constructor() {
    super(
      'another controller sets the label pullpass.io/pull-secret of the Secret to another value: let it leave the label alone, or delete the Secret',
    )
  }
}

/** The Secret of the namespace has to change and cannot. */
export class ImmutableSecret extends Error {
  override readonly name = 'ImmutableSecret'

  constructor() {
    super('the Secret is immutable and has to change: delete it, and pullpass creates it again')
  }
}

const limitCodes = new Set(['mint_limit', 'revoke_limit'])
const notAllowed = 'organization_not_allowed'

/** The namespace asks for an organization that the settings do not let it use. */
export function organizationNotAllowed(message: string): TokenError {
  return new TokenError(message, { kind: 'permanent', scope: 'organization', code: notAllowed })
}

/** The table as Markdown, for CONTRIBUTING.md. */
export function failureTable(): string {
  const rows = [...table, bug].map(({ failure, scope, again, passing, reported }) =>
    [failure, scope, passing ? 'yes' : 'no', nextTry(again), reported].join(' | '),
  )
  const head = 'failure | scope | passes by itself | next try | reported in'
  const rule = '--- | --- | --- | --- | ---'
  return [head, rule, ...rows].map(row => `| ${row} |\n`).join('')
}

function nextTry(again: Again): string {
  if (again === 'never') return 'never'
  if (again === 'later') return 'when the limit allows it'
  const { initialDelay, maxDelay } = again
  if (initialDelay === maxDelay) return `every ${initialDelay / 1000} s`
  return `after ${initialDelay / 1000} s, growing to ${maxDelay / 1000} s`
}

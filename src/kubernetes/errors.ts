import { ApiException } from '@kubernetes/client-node'

interface KubernetesErrorDetails {
  status?: number | undefined
  reason?: string | undefined
  causes?: string[]
  retryAfterMs?: number | undefined
  grant?: string | undefined
}

/**
 * A failed request to the API server. The message is fit for logs and events: it holds no body and
 * no header.
 */
export class KubernetesError extends Error {
  override readonly name = 'KubernetesError'
  /** Absent: there was no answer (network, timeout, unreadable credential). */
  readonly status: number | undefined
  /**
   * The Status object's reason (`Conflict`, `AlreadyExists`, `Expired`), else the system's code
   * (`ECONNREFUSED`).
   */
  readonly reason: string | undefined
  /** Reasons in details.causes: `NamespaceTerminating`, `FieldManagerConflict`, ... */
  readonly causes: string[]
  readonly retryAfterMs: number | undefined
  /** A 403 of the authorizer: the RBAC rule that is missing. Absent for every other refusal. */
  readonly grant: string | undefined

  constructor(message: string, details: KubernetesErrorDetails = {}) {
    super(message)
    this.grant = details.grant
    this.status = details.status
    this.reason = details.reason
    this.causes = details.causes ?? []
    this.retryAfterMs = details.retryAfterMs
  }
}

/**
 * Translates what a call of the client threw. `action` completes "cannot ...":
 * `asKubernetesError('apply Secret shop/pullpass-registry', error)`.
 */
export function asKubernetesError(action: string, error: unknown): KubernetesError {
  if (error instanceof KubernetesError) return error
  if (error instanceof ApiException) {
    return answeredError(action, error.code, { headers: error.headers, body: error.body })
  }
  return unansweredError(action, error)
}

/** The error for an answer with a status outside 2xx; `body` is the Status object or its text. */
export function answeredError(
  action: string,
  status: number,
  answer: { headers: Record<string, string | string[] | undefined>; body: unknown },
): KubernetesError {
  const about = statusObject(answer.body)
  const sentence = status === 403 ? rbacSentence(about.message) : undefined
  const grant = sentence && grantFor(sentence, about.details?.name)
  const words = [`cannot ${action}: HTTP ${status}`, about.reason].filter(Boolean).join(' ')
  return new KubernetesError(sentence ? `${words}: ${sentence}; ${grant}` : words, {
    status,
    grant,
    reason: about.reason,
    causes: (about.details?.causes ?? []).flatMap(cause => cause.reason ?? []),
    retryAfterMs: retryAfterMs(answer.headers['retry-after'] ?? about.details?.retryAfterSeconds),
  })
}

/**
 * The API server's own words about a request that it refused; empty where it said nothing. They may
 * quote the object that was sent, and the one that exists: nothing of them is fit for a log.
 */
export function wordsOf(error: unknown): string {
  return error instanceof ApiException ? (statusObject(error.body).message ?? '') : ''
}

interface Status {
  message?: string
  reason?: string
  details?: { name?: string; causes?: { reason?: string }[]; retryAfterSeconds?: number }
}

/**
 * Proxies in front of the API server answer in HTML; then there is nothing to learn but the status.
 */
function statusObject(body: unknown): Status {
  try {
    const parsed = typeof body === 'string' ? JSON.parse(body) : body
    return parsed?.kind === 'Status' ? parsed : {}
  } catch {
    return {}
  }
}

/**
 * The part of a 403 that the authorizer wrote (kubernetes/apiserver
 * pkg/endpoints/handlers/responsewriters/errors.go): `User "..." cannot patch resource "secrets" in
 * API group "" in the namespace "shop"`. What admission plugins write into a 403 may quote the
 * object, so nothing else is taken over.
 */
const RBAC_SENTENCE =
  /User "[^"]*" cannot [a-z]+ (?:path "[^"]*"|resource "[^"]*"(?: in API group "[^"]*")?(?: in the namespace "[^"]*"| at the cluster scope)?)/

function rbacSentence(message = ''): string | undefined {
  return RBAC_SENTENCE.exec(message)?.[0]
}

/** The rule of a Role or ClusterRole that is missing, in the words of YAML. */
function grantFor(sentence: string, name: string | undefined): string {
  const [, verb, resource, group = ''] =
    /cannot ([a-z]+) resource "([^"]*)"(?: in API group "([^"]*)")?/.exec(sentence) ?? []
  if (verb === undefined) return 'its role does not grant that'
  const names = name === undefined ? '' : `, resourceNames: ["${name}"]`
  return `grant {apiGroups: ["${group}"], resources: ["${resource}"]${names}, verbs: ["${verb}"]}`
}

/** No wait is longer than this, whatever the API server asks for. */
export const LONGEST_WAIT_MS = 30_000

function retryAfterMs(seconds: unknown): number | undefined {
  const value = Number(seconds)
  if (seconds === undefined || !(value >= 0)) return undefined
  return Math.min(value * 1000, LONGEST_WAIT_MS)
}

/**
 * undici says "fetch failed" and hides the reason in `cause`; a credential plug-in's own words may
 * hold a secret.
 */
function unansweredError(action: string, error: unknown): KubernetesError {
  const cause = innermost(error)
  if (cause.name === 'TimeoutError') {
    return new KubernetesError(`cannot ${action}: no answer in time`, { reason: 'Timeout' })
  }
  const file = cause.path === undefined ? '' : ` (${cause.path})`
  const reason = cause.code ?? cause.name
  return new KubernetesError(`cannot ${action}: ${reason}${file}`, { reason })
}

interface Cause {
  name: string
  code?: string
  path?: string
}

function innermost(error: unknown): Cause {
  if (!(error instanceof Error)) return { name: 'unknown error' }
  if (error.cause instanceof Error) return innermost(error.cause)
  const { code, path } = error as Error & { code?: unknown; path?: unknown }
  return {
    name: error.name,
    ...(typeof code === 'string' && { code }),
    ...(typeof path === 'string' && { path }),
  }
}

/**
 * The result of a call. `action` completes "cannot ...". Rejects with a KubernetesError, but resolves
 * to undefined where the API server answers with a status that is `expected` (404, 409).
 */
export async function unlessStatus<T>(
  expected: readonly number[],
  action: string,
  call: Promise<T>,
): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    const failure = asKubernetesError(action, error)
    if (expected.includes(failure.status ?? 0)) return undefined
    throw failure
  }
}

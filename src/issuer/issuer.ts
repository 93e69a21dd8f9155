/** A row of the environment's list of tokens. */
export interface ListedToken {
  id: string
  description: string
  /** Absent where the environment does not give the text back. */
  text: string | undefined
  /** Absent: the token does not expire. */
  expiresAt: Date | undefined
  revoked: boolean
  readOnly: boolean
}

/** A token as it was minted. `text` is the credential: opaque, never logged. */
export interface MintedToken {
  text: string
  /** The environment's handle for revoking (the JWT's `jti`); absent where the text does not show it. */
  id: string | undefined
  /** Absent: the token does not expire. */
  expiresAt: Date | undefined
}

export interface MintRequest {
  organization: string
  description: string
  /** False: a token that expires by itself, after 24 hours. */
  permanent: boolean
}

/**
 * Requests about tokens that only pull. `organization` is a name or a GUID, as configured. Every
 * call rejects with a TokenError and with nothing else.
 */
export interface TokenRequests {
  mint(request: MintRequest, signal: AbortSignal): Promise<MintedToken>
  /**
   * Calls `row` for each token of the organization as it is read, and resolves when the list was
   * complete. Rejects for a list that is cut short or unreadable: its rows do not count then.
   */
  list(
    organization: string,
    row: (token: ListedToken) => void,
    signal: AbortSignal,
  ): Promise<'complete' | 'unsupported'>
  /** The text of one token. `'gone'`: there is no such token. Undefined: the environment gives none. */
  text(organization: string, id: string, signal: AbortSignal): Promise<string | 'gone' | undefined>
  /** Revokes by id. A token that is not there any more counts as revoked. */
  revoke(organization: string, id: string, signal: AbortSignal): Promise<void>
  /** Whether the registry accepts this credential. Rejects where that cannot be said. */
  accepts(text: string, signal: AbortSignal): Promise<boolean>
}

/**
 * Issues registry tokens. Another issuer is a package with a factory for this interface, and a line
 * in service.ts.
 */
export interface Issuer extends TokenRequests {
  /** Starts to watch the credentials. Nothing is requested before a call needs it. */
  start(): void
  /** Ends everything under way; later calls reject. */
  close(): Promise<void>
  /** What is wrong with the environment as a whole (login, network), while it lasts. */
  problem(): TokenError | undefined
  /** The credentials have changed: a refused login does not count any more. */
  onCredentialChange(listener: () => void): void
}

/**
 * What a failure means for the next try:
 *
 * | kind      | meaning                                            | next try                           |
 * |-----------|----------------------------------------------------|------------------------------------|
 * | permanent | asking again gives the same answer                 | when configuration or key changes  |
 * | locked    | the login was refused, the account is locked, or   | after `retryAfterMs`: an hour, or  |
 * |           | the credential files have no usable credentials    | 10 minutes; without: never. At     |
 * |           |                                                    | once when the files change         |
 * | transient | network, 429, 5xx                                  | after `retryAfterMs`, or back-off  |
 *
 * Only `credentials_missing` and `credentials_unusable` are locked without a `retryAfterMs`. An issuer
 * has no timer: it logs in and checks the login server only within a call. So after a failure of the
 * environment, call it at least every 30 s. A call before the next try sends no request.
 *
 * and whom it concerns: the whole `environment` (login, discovery, network) or the one
 * `organization` asked for (no such organization, not a member).
 */
export type TokenErrorKind = 'permanent' | 'locked' | 'transient'
export type TokenErrorScope = 'environment' | 'organization'

interface TokenErrorDetails {
  kind: TokenErrorKind
  scope: TokenErrorScope
  code: string
  organization?: string | undefined
  retryAfterMs?: number | undefined
  request?: 'login' | 'organizations' | undefined
  sent?: boolean | undefined
}

/** The one error of an Issuer. `message` is fit for people and holds no secret. */
export class TokenError extends Error {
  override readonly name = 'TokenError'
  readonly kind: TokenErrorKind
  readonly scope: TokenErrorScope
  /** A short code for metrics and logs: `login_refused`, `organization_not_found`, ... */
  readonly code: string
  /** As configured; given where the scope is `organization`. */
  readonly organization: string | undefined
  readonly retryAfterMs: number | undefined
  /** The request that failed on the way to the one asked for; absent: that one itself. */
  readonly request: 'login' | 'organizations' | undefined
  /** False: the request asked for was not sent, so that nothing was done. True: that is not known. */
  readonly sent: boolean

  constructor(message: string, details: TokenErrorDetails) {
    super(message)
    this.kind = details.kind
    this.scope = details.scope
    this.code = details.code
    this.organization = details.organization
    this.retryAfterMs = details.retryAfterMs
    this.request = details.request
    this.sent = details.sent ?? details.request === undefined
  }
}

/** The same failure with other details. */
export function changed(
  error: TokenError,
  change: Partial<TokenErrorDetails>,
  message = error.message,
): TokenError {
  const { kind, scope, code, organization, retryAfterMs, request, sent } = error
  const details = { kind, scope, code, organization, retryAfterMs, request, sent }
  return new TokenError(message, { ...details, ...change })
}

/** The same passing failure, of a request on the way; for `catch`. Others are passed on as they are. */
export function failedIn(request: 'login' | 'organizations'): (error: unknown) => never {
  return error => {
    if (!(error instanceof TokenError) || error.kind !== 'transient' || error.request) throw error
    throw changed(error, { request, sent: false })
  }
}

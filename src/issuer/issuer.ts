/** A registry token as it was minted or found. `text` is the credential: opaque, never logged. */
export interface RegistryToken {
  text: string
  /** The environment's handle for revoking (the JWT's `jti`); absent where the text did not tell. */
  id: string | undefined
  /** Absent: the token does not expire. */
  expiresAt: Date | undefined
}

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

/**
 * Whoever can issue registry tokens. `organization` is a name or a GUID, as configured.
 * Every call rejects with a TokenError and with nothing else.
 */
export interface TokenIssuer {
  /** Mints a token that only pulls and does not expire, marked with `description`. */
  mint(organization: string, description: string, signal: AbortSignal): Promise<RegistryToken>
  /** Every token of the organization; `'unsupported'` where the environment cannot list. */
  list(organization: string, signal: AbortSignal): Promise<ListedToken[] | 'unsupported'>
  /** Revokes by id. A token that is not there any more counts as revoked. */
  revoke(organization: string, id: string, signal: AbortSignal): Promise<void>
  /** Asks the registry once, cheaply, whether it takes this credential. */
  accepts(text: string, signal: AbortSignal): Promise<boolean>
}

/**
 * What a failure means for the next try:
 *
 * | kind      | meaning                                            | next try                           |
 * |-----------|----------------------------------------------------|------------------------------------|
 * | permanent | asking again gives the same answer                 | when configuration or key changes  |
 * | locked    | the account is locked, or the login was refused    | never before the key file changes  |
 * | transient | network, 429, 5xx                                  | after `retryAfterMs`, or back-off  |
 *
 * and whom it concerns: the whole `environment` (login, discovery, network) or the one
 * `organization` asked for (no such organization, not a member).
 */
export type TokenErrorKind = 'permanent' | 'locked' | 'transient'
export type TokenErrorScope = 'environment' | 'organization'

/** The one error of a TokenIssuer. `message` is fit for people and holds no secret. */
export class TokenError extends Error {
  override readonly name = 'TokenError'
  readonly kind: TokenErrorKind
  readonly scope: TokenErrorScope
  /** A short code for metrics and logs: `login_refused`, `organization_not_found`, ... */
  readonly code: string
  readonly retryAfterMs: number | undefined
  /** The request that failed on the way to the one asked for; absent: that one itself. */
  readonly request: 'login' | 'organizations' | undefined

  constructor(
    message: string,
    details: {
      kind: TokenErrorKind
      scope: TokenErrorScope
      code: string
      retryAfterMs?: number | undefined
      request?: 'login' | 'organizations' | undefined
    },
  ) {
    super(message)
    this.kind = details.kind
    this.scope = details.scope
    this.code = details.code
    this.retryAfterMs = details.retryAfterMs
    this.request = details.request
  }
}

/** The same passing failure, of a request on the way; for `catch`. Others are passed on as they are. */
export function failedIn(request: 'login' | 'organizations'): (error: unknown) => never {
  return error => {
    if (!(error instanceof TokenError) || error.kind !== 'transient' || error.request) throw error
    const { message, kind, scope, code, retryAfterMs } = error
    throw new TokenError(message, { kind, scope, code, retryAfterMs, request })
  }
}

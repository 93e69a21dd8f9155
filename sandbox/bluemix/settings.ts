/** Behaviour that differs between environments and is not a fault. */
export interface Settings {
  /** Life of UAA access tokens; public Bluemix of 2018 gave 14 days. */
  accessTokenSeconds: number
  /** Life of UAA refresh tokens; refreshing does not prolong it (cloudfoundry/uaa 4.8.0). */
  refreshTokenSeconds: number
  /** Newer UAA: each refresh returns a new refresh token, and the old one becomes invalid. */
  rotateRefreshTokens: boolean
  /** Newer UAA (`jwt.token.refresh.unique`): a login revokes the refresh tokens of earlier logins. */
  uniqueRefreshTokens: boolean
  /** A cloud controller of today with v2 switched off. */
  v2Disabled: boolean
  /** The names under which IAM answers: `/oidc/token` in 2017, `/identity/token` later. */
  iamPaths: string[]
  /** What separates the words of `response_type`; undefined: a comma or a blank. */
  iamSeparator: ',' | ' ' | undefined
  /** IAM gives UAA tokens along; without them, UAA exchanges IAM's token (`grant_type=iam_token`). */
  iamGivesUaaTokens: boolean
  /** The status of a successful DELETE of a token. */
  revokeStatus: 200 | 204
  /** What a mint with a description gives that was used before; see registry-tokens.ts. */
  repeatedDescription: 'new' | 'same' | 'same_stays_revoked'
  /** The procedure's own sample of a token has two parts, without a signature. */
  tokenParts: 2 | 3
  /** The token API also requires the header `Account` with this value. */
  account: string | undefined
  /** The methods that the realm supports. */
  realmMethods: ('GET' | 'POST')[]
  /** Its answer to the other method. */
  realmOtherStatus: 400 | 401 | 404 | 405
  /** icr.io answers 400 where a registry would answer 401 to wrong credentials. */
  icrMode: boolean
  /** JSON with line breaks and indentation, as the procedure of 2017 shows it. */
  prettyPrint: boolean
}

export function defaultSettings(): Settings {
  return {
    accessTokenSeconds: 1_209_600,
    refreshTokenSeconds: 2_592_000,
    rotateRefreshTokens: false,
    uniqueRefreshTokens: false,
    v2Disabled: false,
    iamPaths: ['/oidc/token', '/identity/token'],
    iamSeparator: undefined,
    iamGivesUaaTokens: true,
    revokeStatus: 204,
    repeatedDescription: 'new',
    tokenParts: 3,
    account: undefined,
    realmMethods: ['GET', 'POST'],
    realmOtherStatus: 405,
    icrMode: false,
    prettyPrint: false,
  }
}

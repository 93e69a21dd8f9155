/** Behaviour that differs between environments and is not a fault. */
export interface Settings {
  /** Life of UAA access tokens; public Bluemix of 2018 gave 14 days. */
  accessTokenSeconds: number
  /** Life of UAA refresh tokens; refreshing does not prolong it (cloudfoundry/uaa 4.8.0). */
  refreshTokenSeconds: number
  /** Newer UAA: each refresh returns a new refresh token, and the old one becomes invalid. */
  rotateRefreshTokens: boolean
  /** A cloud controller of today with v2 switched off. */
  v2Disabled: boolean
  /** The names under which IAM answers: `/oidc/token` in 2017, `/identity/token` later. */
  iamPaths: string[]
  /** The status of a successful DELETE of a token. */
  revokeStatus: 200 | 204
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
    v2Disabled: false,
    iamPaths: ['/oidc/token', '/identity/token'],
    revokeStatus: 204,
    icrMode: false,
    prettyPrint: false,
  }
}

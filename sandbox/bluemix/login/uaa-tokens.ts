import { randomBytes, randomUUID } from 'node:crypto'
import { seconds } from '../clock.ts'
import type { Directory, User } from '../directory.ts'
import { type Claims, signHs256, verifyHs256 } from '../jwt.ts'
import type { SecretBook } from '../secret-book.ts'
import type { Settings } from '../settings.ts'
import { accessClaims, isAudience, refreshClaims, revocationSignature } from './uaa-claims.ts'

/** The scopes of a Bluemix user in 2018. */
const userScopes =
  'openid network.write uaa.user cloud_controller.read password.write cloud_controller.write network.admin'

/** UAA's answer to a successful token request, in its order. */
export interface Grant {
  access_token: string
  token_type: 'bearer'
  refresh_token: string
  expires_in: number
  scope: string
  jti: string
}

export interface Sessions {
  /** A new access token, and a refresh token unless the old one stays valid. `scope` '' means all. */
  open(user: User, now: number, wish: { scope: string; refreshToken?: string }): Grant
  /** The user of a refresh token and the token that is valid from now on, or UAA's error message. */
  refresh(
    token: string,
    now: number,
  ): { user: User; refreshToken: string | undefined } | { refused: string }
  /** The claims of an access token that is valid here now. */
  verify(token: string, now: number, place: 'cloud_controller' | 'registry'): Claims | undefined
  expireAccessTokens(where: 'registry' | 'everywhere'): void
  revokeRefreshTokens(): void
}

/** UAA's tokens: JWTs, signed with a key of its own (claims: UaaTokenServices.java, 4.8.0). */
export function createSessions(dependencies: {
  issuer: string
  settings: Settings
  secrets: SecretBook
  directory: Directory
}): Sessions {
  const key = randomBytes(32)
  const header = { alg: 'HS256', kid: 'legacy-token-key', typ: 'JWT' }
  const accessTokens: string[] = []
  const expired = { registry: new Set<unknown>(), everywhere: new Set<unknown>() }
  const refreshTokens = new Set<string>()
  const sign = (claims: Claims) => {
    const token = signHs256(claims, key, header)
    dependencies.secrets.addJwt(token)
    return token
  }
  const forgetTokensOf = ({ id }: User) => {
    for (const token of refreshTokens) {
      if (verifyHs256(token, key)?.user_id === id) refreshTokens.delete(token)
    }
  }
  const refreshTokenFor = (user: User, jti: string, now: number) => {
    const life = {
      iat: seconds(now),
      exp: seconds(now) + dependencies.settings.refreshTokenSeconds,
    }
    const token = sign(refreshClaims(user, `${jti}-r`, { ...life, iss: dependencies.issuer }))
    if (dependencies.settings.uniqueRefreshTokens) forgetTokensOf(user)
    refreshTokens.add(token)
    return token
  }
  return {
    open: (user, now, wish) => {
      const jti = randomUUID().replaceAll('-', '')
      const scope = wish.scope || userScopes
      const life = {
        iat: seconds(now),
        exp: seconds(now) + dependencies.settings.accessTokenSeconds,
      }
      const access = sign(accessClaims(user, jti, { scope, ...life, iss: dependencies.issuer }))
      accessTokens.push(jti)
      return {
        access_token: access,
        token_type: 'bearer',
        refresh_token: wish.refreshToken ?? refreshTokenFor(user, jti, now),
        expires_in: dependencies.settings.accessTokenSeconds,
        scope,
        jti,
      }
    },
    refresh: (token, now) => {
      const claims = verifyHs256(token, key)
      const user = dependencies.directory.userById(claims?.user_id)
      const refused = refusal(token, { claims, user, known: refreshTokens.has(token), now })
      if (refused || !user) return { refused: refused ?? `Invalid refresh token: ${token}` }
      if (!dependencies.settings.rotateRefreshTokens) return { user, refreshToken: token }
      refreshTokens.delete(token)
      return { user, refreshToken: undefined }
    },
    verify: (token, now, place) => {
      const claims = verifyHs256(token, key)
      if (!claims || !isAudience(claims, 'cloud_controller')) return undefined
      if (Number(claims.exp) <= seconds(now) || expired.everywhere.has(claims.jti)) return undefined
      return place === 'registry' && expired.registry.has(claims.jti) ? undefined : claims
    },
    expireAccessTokens: where => {
      for (const jti of accessTokens) expired[where].add(jti)
    },
    revokeRefreshTokens: () => refreshTokens.clear(),
  }
}

/** Whether the user has every requested scope. */
export function scopesExist(scope: string): boolean {
  return scope.split(' ').every(each => each === '' || userScopes.split(' ').includes(each))
}

/** UAA 4.8.0 puts the refresh token itself into these descriptions (UaaTokenServices.java). */
function refusal(
  token: string,
  found: { claims: Claims | undefined; user: User | undefined; known: boolean; now: number },
): string | undefined {
  if (!found.claims || !found.user) return `Invalid refresh token: ${token}`
  const exp = Number(found.claims.exp) * 1000
  if (exp <= found.now) {
    return `Invalid refresh token (expired): ${token} expired at ${new Date(exp).toUTCString()}`
  }
  const revoked = !found.known || found.claims.rev_sig !== revocationSignature(found.user)
  return revoked ? `Invalid refresh token (revoked): ${token}` : undefined
}

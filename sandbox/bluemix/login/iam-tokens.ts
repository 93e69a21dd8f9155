import { randomBytes, randomUUID } from 'node:crypto'
import { seconds } from '../clock.ts'
import type { User } from '../directory.ts'
import { type Claims, signHs256, verifyHs256 } from '../jwt.ts'
import type { World } from '../world.ts'

const accessSeconds = 3600
const refreshSeconds = 2_592_000

export interface IamTokens {
  /** IAM's answer to a successful token request; `withUaa`: two more tokens. */
  grant(user: User, now: number, withUaa: boolean): Record<string, unknown>
  /** The user of a refresh token, or why there is none. `now` in epoch ms. */
  refresh(token: string, now: number): User | 'expired' | 'inactive' | 'invalid'
  /** The user of an access token; undefined where it is not valid. `now` in epoch ms. */
  verify(token: string, now: number): User | undefined
  /** Ends the sessions of all refresh tokens so far. */
  endSessions(): void
}

/** IAM's own tokens: JWTs by a key that neither UAA nor the registry knows. */
export function createIamTokens(world: Omit<World, 'iamTokens'>): IamTokens {
  const key = randomBytes(32)
  const iss = `https://${world.hosts.iam}/oidc/token`
  const active = new Set<string>()
  const sign = (claims: Claims, now: number, life: number) => {
    const times = { iat: now, exp: now + life, iss, jti: randomUUID() }
    const token = signHs256({ ...claims, ...times }, key)
    world.secrets.addJwt(token)
    return token
  }
  return {
    grant: (user, nowMs, withUaa) => {
      const now = seconds(nowMs)
      const withTokens = withUaa && world.settings.iamGivesUaaTokens
      const refreshToken = sign({ id: user.id, use: 'refresh' }, now, refreshSeconds)
      active.add(refreshToken)
      const uaa = withTokens ? world.sessions.open(user, nowMs, { scope: '' }) : undefined
      return {
        access_token: sign({ id: user.id, use: 'access' }, now, accessSeconds),
        refresh_token: refreshToken,
        ...(uaa && { uaa_token: uaa.access_token, uaa_refresh_token: uaa.refresh_token }),
        token_type: 'Bearer',
        expires_in: accessSeconds,
        expiration: now + accessSeconds,
        scope: 'ibm openid',
      }
    },
    refresh: (token, now) => {
      const claims = verifyHs256(token, key)
      if (claims?.use !== 'refresh') return 'invalid'
      if (Number(claims.exp) <= seconds(now)) return 'expired'
      if (!active.has(token)) return 'inactive'
      return world.directory.userById(claims.id) ?? 'invalid'
    },
    verify: (token, now) => {
      const claims = verifyHs256(token, key)
      const isGood = claims?.use === 'access' && Number(claims.exp) > seconds(now)
      return isGood ? world.directory.userById(claims.id) : undefined
    },
    endSessions: () => active.clear(),
  }
}

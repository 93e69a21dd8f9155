import { createHash } from 'node:crypto'
import type { User } from '../directory.ts'
import type { Claims } from '../jwt.ts'

/** Unix seconds, and the issuer. */
export interface Life {
  iat: number
  exp: number
  iss: string
}

/** The claims of an access token, in the order of UaaTokenServices.java (4.8.0). */
export function accessClaims(
  user: User,
  jti: string,
  { scope, ...life }: Life & { scope: string },
): Claims {
  const scopes = scope.split(' ')
  const audience = scopes.filter(each => each.includes('.')).map(each => each.split('.')[0])
  return {
    ...{ jti, sub: user.id, scope: scopes },
    ...identity(user),
    ...{ iat: life.iat, exp: life.exp, iss: life.iss, zid: 'uaa' },
    aud: [...new Set(['cf', ...audience])],
  }
}

/** No `scope`, and only the client as audience: it gives no access by itself. */
export function refreshClaims(user: User, jti: string, life: Life): Claims {
  return { jti, sub: user.id, ...identity(user), ...life, zid: 'uaa', aud: ['cf'] }
}

function identity(user: User): Claims {
  return {
    ...{ client_id: 'cf', cid: 'cf', azp: 'cf', grant_type: 'password' },
    ...{ user_id: user.id, origin: 'uaa', user_name: user.name, email: user.name },
    rev_sig: revocationSignature(user),
  }
}

/** Changes with the password, which makes the refresh tokens invalid. */
export function revocationSignature(user: User): string {
  return createHash('sha256').update(`cf${user.id}${user.password}`).digest('hex').slice(0, 8)
}

export function isAudience(claims: Claims, name: string): boolean {
  return Array.isArray(claims.aud) && claims.aud.includes(name)
}

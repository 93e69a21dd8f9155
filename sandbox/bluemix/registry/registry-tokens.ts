import { createHash, randomBytes } from 'node:crypto'
import { seconds } from '../clock.ts'
import type { Organization } from '../directory.ts'
import { type Claims, signHs256, uuidV5, verifyHs256 } from '../jwt.ts'

/** The registry's record of a token; the rights are in it, not in the token. */
export interface TokenRow {
  id: string
  text: string
  organization: Organization
  description: string
  write: boolean
  permanent: boolean
  /** Unix seconds; 0 for a token that does not expire. */
  expiry: number
  mintedAt: number
  revoked: boolean
}

export interface TokenWish {
  organization: Organization
  description: string
  permanent: boolean
  write: boolean
}

export interface RegistryTokens {
  mint(wish: TokenWish, now: number): TokenRow
  /** Of this organization, in the order of minting; expired ones are gone, revoked ones stay. */
  list(organization: Organization, now: number): TokenRow[]
  /** The record of a token that is valid now. */
  byText(text: string, now: number): TokenRow | undefined
}

const dayMs = 86_400_000

/**
 * The registry's tokens, signed with its own key (HS256, so nobody else can check them).
 * Claims and their order are those of the samples: `exp` (if any), `jti`, `iss`.
 */
export function createRegistryTokens(host: string): RegistryTokens {
  const key = randomBytes(32)
  const rows = new Map<string, TokenRow>()
  const unexpired = (row: TokenRow, now: number) => row.expiry === 0 || row.expiry > seconds(now)
  return {
    mint: (wish, now) => {
      const id = uuidV5(`${wish.organization.guid}/${rows.size}/${randomBytes(16).toString('hex')}`)
      const expiry = wish.permanent ? 0 : seconds(now + dayMs)
      const claims: Claims = { ...(wish.permanent ? {} : { exp: expiry }), jti: id, iss: host }
      const text = signHs256(claims, key)
      const row = { ...wish, id, text, expiry, mintedAt: now, revoked: false }
      rows.set(id, row)
      return row
    },
    list: (organization, now) =>
      [...rows.values()].filter(
        row => row.organization.guid === organization.guid && unexpired(row, now),
      ),
    byText: (text, now) => {
      const row = rows.get(String(verifyHs256(text, key)?.jti))
      return row && !row.revoked && unexpired(row, now) ? row : undefined
    },
  }
}

/** A row as the list shows it (bluemix-go: api/container/registryv1/tokens.go). */
export function listedRow(row: TokenRow, tokenText: 'absent' | 'empty' | undefined) {
  return {
    _id: row.id,
    owner: row.organization.guid,
    ...(tokenText === 'absent' ? {} : { token: tokenText === 'empty' ? '' : row.text }),
    secondary_owner: row.description,
    readonly: !row.write,
    revoked: row.revoked,
    expiry: row.expiry,
    encrypted_token: createHash('sha256').update(row.text).digest('base64'),
  }
}

import { createHash, randomBytes } from 'node:crypto'
import { seconds } from '../clock.ts'
import type { Organization } from '../directory.ts'
import { type Claims, signHs256, uuidV5 } from '../jwt.ts'
import type { Settings } from '../settings.ts'

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
  revokedAt: number | undefined
}

export interface TokenWish {
  organization: Organization
  description: string
  permanent: boolean
  write: boolean
}

export interface RegistryTokens {
  mint(wish: TokenWish, now: number): TokenRow
  /**
   * Of this organization, in the order of minting; expired ones are gone, revoked ones stay. A list
   * that lags shows the state of `asOf`.
   */
  list(organization: Organization, now: number, asOf?: number): TokenRow[]
  /** Changes the description of a token. */
  describe(id: string, description: string): void
  /** The record of a token that is valid now. */
  byText(text: string, now: number): TokenRow | undefined
}

const dayMs = 86_400_000

/**
 * The registry's tokens, signed with its own key (HS256, so nobody else can check them).
 * Claims and their order are those of the samples: `exp` (if any), `jti`, `iss`.
 *
 * | `repeatedDescription`  | a mint with a description that the organization has used before     |
 * |------------------------|----------------------------------------------------------------------|
 * | `new`                  | another token                                                        |
 * | `same`                 | the same id; a token that was revoked is valid again                 |
 * | `same_stays_revoked`   | the same id; a token that was revoked stays so                       |
 */
export function createRegistryTokens(host: string, settings: Settings): RegistryTokens {
  const key = randomBytes(32)
  const rows = new Map<string, TokenRow>()
  const idFor = ({ organization: { guid }, description }: TokenWish) => {
    const isNew = settings.repeatedDescription === 'new'
    return uuidV5(
      `${guid}/${isNew ? `${rows.size}/${randomBytes(16).toString('hex')}` : description}`,
    )
  }
  const revokedBefore = (id: string) =>
    settings.repeatedDescription === 'same_stays_revoked' ? rows.get(id)?.revokedAt : undefined
  const unexpired = (row: TokenRow, now: number) => row.expiry === 0 || row.expiry > seconds(now)
  return {
    mint: (wish, now) => {
      const id = idFor(wish)
      const expiry = wish.permanent ? 0 : seconds(now + dayMs)
      const claims: Claims = { ...(wish.permanent ? {} : { exp: expiry }), jti: id, iss: host }
      const signed = signHs256(claims, key)
      const text = signed.split('.').slice(0, settings.tokenParts).join('.')
      const row = { ...wish, id, text, expiry, mintedAt: now, revokedAt: revokedBefore(id) }
      rows.set(id, row)
      return row
    },
    list: (organization, now, asOf = now) =>
      [...rows.values()].filter(
        row =>
          row.organization.guid === organization.guid &&
          row.mintedAt <= asOf &&
          unexpired(row, now),
      ),
    describe: (id, description) => {
      const row = rows.get(id)
      if (row !== undefined) row.description = description
    },
    byText: (text, now) => {
      const row = rows.get(idIn(text))
      const isValid = row?.text === text && row.revokedAt === undefined && unexpired(row, now)
      return isValid ? row : undefined
    },
  }
}

/** The `jti` of a token. A token of two parts has no signature: the text is compared whole. */
function idIn(text: string): string {
  try {
    return String(JSON.parse(Buffer.from(text.split('.')[1] ?? '', 'base64url').toString()).jti)
  } catch {
    return ''
  }
}

/** A row as the list of `asOf` shows it (bluemix-go: api/container/registryv1/tokens.go). */
export function listedRow(
  row: TokenRow,
  { asOf, tokenText }: { asOf: number; tokenText: 'absent' | 'empty' | undefined },
) {
  return {
    _id: row.id,
    owner: row.organization.guid,
    ...(tokenText === 'absent' ? {} : { token: tokenText === 'empty' ? '' : row.text }),
    secondary_owner: row.description,
    readonly: !row.write,
    revoked: row.revokedAt !== undefined && row.revokedAt <= asOf,
    expiry: row.expiry,
    encrypted_token: createHash('sha256').update(row.text).digest('base64'),
  }
}

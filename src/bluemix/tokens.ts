import { JSONParser } from '@streamparser/json'
import type { ListedToken, MintedToken } from '../issuer/issuer.ts'
import { claimsOf } from '../jwt.ts'
import { record, text } from './http/answer.ts'

/** A token as it can stand in a header: printable ASCII without spaces; white space around it is
 * taken off (the environment may print its JSON prettily). Undefined for anything else. */
export function tokenText(value: unknown): string | undefined {
  const token = text(value)?.trim()
  return token !== undefined && /^[\x21-\x7e]{1,65536}$/.test(token) ? token : undefined
}

/**
 * How long an access token lives: the shorter of `expires_in` and the JWT's `exp - iat`; ten
 * minutes if neither is given. Both are spans, so a clock that is wrong does not matter.
 */
export function lifetimeMs(accessToken: string, expiresIn: unknown): number {
  const { exp, iat } = claimsOf(accessToken)
  const spans = [Number(expiresIn), Number(exp) - Number(iat)].filter(span => span > 0)
  return (spans.length === 0 ? 600 : Math.min(...spans)) * 1000
}

/**
 * The body of a mint, `{"token":"<jwt>"}`; undefined where there is no usable token in it. The
 * token is opaque: its id (`jti`) and expiry (`exp`) are read where it shows them.
 */
export function mintedToken(json: unknown): MintedToken | undefined {
  const token = tokenText(record(json).token)
  if (token === undefined) return undefined
  const { jti, exp } = claimsOf(token)
  return { text: token, id: text(jti), expiresAt: instant(exp) }
}

/**
 * A row of the list. Fields may be missing (bluemix-go registryv1/tokens.go): `_id`, `token`,
 * `secondary_owner` (the description), `readonly`, `revoked`, `expiry` (Unix seconds, 0 for never).
 */
export function listedToken(row: Record<string, unknown>): ListedToken {
  const token = tokenText(row.token)
  const { jti, exp } = claimsOf(token ?? '')
  return {
    id: text(row._id) ?? text(jti) ?? '',
    description: text(row.secondary_owner) ?? '',
    text: token,
    expiresAt: instant(row.expiry) ?? instant(exp),
    revoked: row.revoked === true,
    readOnly: row.readonly !== false,
  }
}

function instant(seconds: unknown): Date | undefined {
  const inRange = typeof seconds === 'number' && seconds > 0 && seconds < 8.64e12
  return inRange ? new Date(seconds * 1000) : undefined
}

export interface ListReader {
  /** False: the list is unreadable, and the rest of it need not be read. */
  write(chunk: Uint8Array): boolean
  /** Whether all of the list was read. */
  isComplete(): boolean
}

/** More bytes than this without the end of a row are no list. */
const mostRowBytes = 1024 * 1024

/*
 * What a body means; rows are passed on before that is known:
 *
 * | body                                              | the list is                              |
 * |---------------------------------------------------|------------------------------------------|
 * | {"tokens": [row, ...]}                            | complete                                 |
 * | {"tokens": null}                                  | complete and empty (so Go writes it)     |
 * | the same with "next" or "next_url" that is set    | cut short: one page of several           |
 * | cut off, no JSON, no "tokens", or another shape   | unreadable                               |
 */
export function createListReader(row: (token: ListedToken) => void): ListReader {
  const parser = new JSONParser({ paths: ['$.tokens.*', '$.*'] })
  let hasTokens = false
  let isUnreadable = false
  let bytesOfRow = 0
  const readField = (key: unknown, value: unknown) => {
    if (key === 'tokens') hasTokens = value === null || Array.isArray(value)
    if (isNextPage(key, value) || (key === 'tokens' && !hasTokens)) isUnreadable = true
  }
  parser.onValue = ({ key, value, parent, stack }) => {
    bytesOfRow = 0
    if (stack.length === 1) return readField(key, value)
    readRow(value, row)
    // The parser keeps all rows until the array ends.
    if (Array.isArray(parent)) parent[Number(key)] = null
    else isUnreadable = true
  }
  const parse = (chunk: Uint8Array) => {
    try {
      parser.write(chunk)
    } catch {
      isUnreadable = true
    }
  }
  return {
    write: chunk => {
      bytesOfRow += chunk.length
      if (bytesOfRow > mostRowBytes + chunk.length) isUnreadable = true
      if (!isUnreadable) parse(chunk)
      return !isUnreadable
    },
    isComplete: () => hasTokens && parser.isEnded && !isUnreadable,
  }
}

function isNextPage(key: unknown, value: unknown): boolean {
  return (key === 'next' || key === 'next_url') && value !== null && value !== ''
}

/** A row without an id cannot be named to anybody. */
function readRow(value: unknown, row: (token: ListedToken) => void): void {
  const token = listedToken(record(value))
  if (token.id !== '') row(token)
}

import type { Operation } from './faults.ts'

export type LoginKind =
  | 'password'
  | 'api_key'
  | 'passcode'
  | 'refresh'
  | 'iam_password'
  | 'iam_api_key'
  | 'iam_passcode'
  | 'iam_refresh'
  | 'iam_token'
  | 'malformed'

/** One request to a token endpoint of login, uaa or iam. Times are the environment's, epoch ms. */
export interface LoginEntry {
  at: number
  kind: LoginKind
  /** The user, if known. */
  user: string | undefined
  /** `granted`, or the error code answered: `unauthorized`, `invalid_token`, `BXNIM0415E`, ... */
  outcome: string
  /** Concurrent token requests at that time, including this one. */
  inFlight: number
}

export interface MintEntry {
  at: number
  organization: string
  description: string
  id: string
  permanent: boolean
  write: boolean
}

export interface RevokeEntry {
  at: number
  organization: string
  id: string
  description: string
}

export interface ListEntry {
  at: number
  organization: string
  count: number
}

export interface RequestEntry {
  at: number
  sequence: number
  operation: Operation | undefined
  method: string
  host: string
  path: string
  /** Absent until the response, and if the connection was reset. */
  status: number | undefined
  /** Size of the response without TLS: its head and its body. 0 until it was written. */
  bytes: number
}

/** A registry token that is valid now. */
export interface LiveToken extends MintEntry {
  text: string
}

export interface LedgerView {
  logins(): LoginEntry[]
  /** The highest number of concurrent token requests. */
  maxLoginsInFlight(): number
  mints(): MintEntry[]
  revokes(): RevokeEntry[]
  lists(): ListEntry[]
  requests(operation?: Operation): RequestEntry[]
  /** Tokens that are neither revoked nor expired; only those with this description, if one is given. */
  liveTokens(description?: string): LiveToken[]
}

export interface Ledger extends LedgerView {
  /** A token request begins; the returned function ends it. */
  enterLogin(): () => void
  login(entry: Omit<LoginEntry, 'inFlight'>): void
  mint(entry: LiveToken & { expiry: number }): void
  revoke(entry: RevokeEntry): void
  list(entry: ListEntry): void
  request(entry: RequestEntry): RequestEntry
  /** The number of the next request, from 1. */
  nextSequence(): number
}

export function createLedger(now: () => number): Ledger {
  const logins: LoginEntry[] = []
  const minted: (LiveToken & { expiry: number })[] = []
  const revokes: RevokeEntry[] = []
  const lists: ListEntry[] = []
  const requests: RequestEntry[] = []
  let inFlight = 0
  let most = 0
  /** By id; a token may be minted again under the same id. */
  const standing = new Map<string, LiveToken & { expiry: number }>()
  const isUnexpired = ({ expiry }: { expiry: number }) => expiry === 0 || expiry > now()
  return {
    enterLogin: () => {
      inFlight += 1
      most = Math.max(most, inFlight)
      return () => {
        inFlight -= 1
      }
    },
    login: entry => logins.push({ ...entry, inFlight }),
    mint: entry => {
      minted.push(entry)
      standing.set(entry.id, entry)
    },
    revoke: entry => {
      revokes.push(entry)
      standing.delete(entry.id)
    },
    list: entry => lists.push(entry),
    request: entry => {
      requests.push(entry)
      return entry
    },
    nextSequence: () => requests.length + 1,
    logins: () => [...logins],
    maxLoginsInFlight: () => most,
    mints: () => minted.map(({ text: _text, expiry: _expiry, ...entry }) => entry),
    revokes: () => [...revokes],
    lists: () => [...lists],
    requests: operation => requests.filter(each => !operation || each.operation === operation),
    liveTokens: description =>
      [...standing.values()]
        .filter(token => description === undefined || token.description === description)
        .filter(isUnexpired)
        .map(({ expiry: _expiry, ...token }) => token),
  }
}

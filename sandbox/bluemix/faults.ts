import { chance } from './chance.ts'

/**
 * Faults that can be switched on at run time, by operation:
 *
 * | operation     | requests                                                     |
 * |---------------|--------------------------------------------------------------|
 * | info          | `GET api/`, `GET api/v2/info`                                |
 * | login         | token endpoints of login, uaa and iam                        |
 * | organizations | `GET api/v2/organizations`, `/v3/organizations`, by GUID     |
 * | mint          | `POST registry/api/v1/tokens`                                |
 * | list, get     | `GET registry/api/v1/tokens`, `GET .../:id`                  |
 * | revoke        | `DELETE registry/api/v1/tokens...`                           |
 * | oauth         | `GET`, `POST registry/oauth/token`                           |
 * | registry      | `registry/v2/*`                                              |
 * | *             | all of them; a fault of the operation itself has precedence  |
 */
export type Operation =
  | 'info'
  | 'login'
  | 'organizations'
  | 'mint'
  | 'list'
  | 'get'
  | 'revoke'
  | 'oauth'
  | 'registry'

/**
 * | failure      | what the client sees                                                     |
 * |--------------|--------------------------------------------------------------------------|
 * | reset        | the connection is reset                                                  |
 * | truncated    | the answer's head and half of its body, then a reset; the work was done   |
 * | cut          | half of the body, as if it were all of it; the work was done              |
 * | rate_limited | 429; cloud controller: JSON as text/plain, `Retry-After` an epoch; UAA: text, no header. `info` is exempt |
 * | unavailable  | 503 with a page of HTML                                                  |
 * | error_html   | 500 with a page of HTML                                                  |
 * | error_text   | 500 `Internal Error` as text/plain                                       |
 * | unsupported  | 404, or `status`                                                         |
 * | uaa_unavailable | organizations: 503 20004 UaaUnavailable, as CF-JSON                   |
 */
export type Failure =
  | 'reset'
  | 'truncated'
  | 'cut'
  | 'rate_limited'
  | 'unavailable'
  | 'error_html'
  | 'error_text'
  | 'unsupported'
  | 'uaa_unavailable'

export interface Fault {
  /** Delay before the request is handled. Always applies, whatever `probability` is. */
  latencyMs?: number
  /** Delay after the request was handled, before the response. Always applies. */
  answerLatencyMs?: number
  fail?: Failure
  /** `after`: the work is done (a token is minted), then the answer fails. Default `before`. */
  when?: 'before' | 'after'
  /** Share of the requests that `fail`, 0 to 1; drawn from `seed` (default 1), so repeatable. */
  probability?: number
  seed?: number
  /** The number of requests that fail; later ones succeed. */
  times?: number
  /** rate_limited: how far away the epoch in `Retry-After` is. Default 2. */
  retryAfterSeconds?: number
  /** unsupported: 404 (default) or 501. */
  status?: number
  /**
   * login: every password grant is refused this way, right or wrong. `wrong_client`: every refresh,
   * 400 invalid_grant.
   */
  refuse?: 'locked' | 'federated' | 'password_expired' | 'wrong_client'
  /** mint, list, get, revoke, oauth: every UAA token counts as expired there. */
  accessTokens?: 'expired'
  /** mint, list, get, revoke: refused as an access token that cannot be checked, or for the role. */
  refuseTokens?: 'cannot_authenticate' | 'not_authorized'
  /** list: the state of so many milliseconds ago. */
  lagMs?: number
  /** list: only the first rows. */
  mostRows?: number
  /** list with `mostRows`: the answer names the next page (`?page=2`), as Cloud Foundry's lists do. */
  nextUrl?: boolean
  /** list, get: the rows do not give the token's text, or give an empty one. */
  tokenText?: 'absent' | 'empty'
  /** The clock of the service that handles this operation is wrong by this much. */
  clockSkewMs?: number
  prettyPrint?: boolean
  /** The body is sent in pieces, with so many pauses of this length between them. */
  pauses?: { count: number; ms: number }
  /** So many blanks follow a JSON body. */
  paddingBytes?: number
  /** Every connection is reset; for `*` already at the gateway, open ones at once. */
  down?: boolean
}

export interface FaultSwitches {
  /**
   * Replaces what was set for this operation, or for this operation of the token API for one
   * organization alone. A fault of the organization has precedence.
   */
  set(operation: Operation | '*', fault: Fault, organization?: string): void
  /** Without an operation: removes all faults. */
  clear(operation?: Operation | '*', organization?: string): void
}

export interface Faults extends FaultSwitches {
  /** The fault for one request; without `fail` if this request does not fail. */
  draw(operation: Operation | undefined, organization: string | undefined): Fault
  /** Whether the whole environment is down. */
  down(): boolean
  onChange(listener: () => void): void
}

export function createFaults(): Faults {
  const switched = new Map<string, { fault: Fault; strikes: () => boolean }>()
  const listeners: (() => void)[] = []
  const changed = () => {
    for (const listener of listeners) listener()
  }
  return {
    set: (operation, fault, organization) => {
      switched.set(keyOf(operation, organization), { fault, strikes: chance(fault) })
      changed()
    },
    clear: (operation, organization) => {
      if (operation === undefined) switched.clear()
      else switched.delete(keyOf(operation, organization))
      changed()
    },
    draw: (operation, organization) => {
      const all = precedence(operation, organization).flatMap(key => switched.get(key) ?? [])
      const merged = Object.assign({}, ...all.map(({ fault }) => fault).reverse()) as Fault
      const { fail, ...rest } = merged
      const source = all.find(({ fault }) => fault.fail !== undefined)
      const exempt = operation === 'info' && fail === 'rate_limited'
      return fail !== undefined && !exempt && source?.strikes() ? { ...rest, fail } : rest
    },
    down: () => switched.get('*')?.fault.down === true,
    onChange: listener => {
      listeners.push(listener)
    },
  }
}

function keyOf(operation: Operation | '*', organization: string | undefined): string {
  return organization === undefined ? operation : `${operation} ${organization}`
}

function precedence(operation: Operation | undefined, organization: string | undefined): string[] {
  const operations = operation === undefined ? ['*' as const] : [operation, '*' as const]
  const own = organization === undefined ? [] : operations.map(each => keyOf(each, organization))
  return [...own, ...operations]
}

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
 * | rate_limited | 429; cloud controller: JSON as text/plain, `Retry-After` an epoch; UAA: text, no header. `info` is exempt |
 * | unavailable  | 503 with a page of HTML                                                  |
 * | error_html   | 500 with a page of HTML                                                  |
 * | error_text   | 500 `Internal Error` as text/plain                                       |
 * | unsupported  | 404, or `status`                                                         |
 */
export type Failure =
  | 'reset'
  | 'truncated'
  | 'rate_limited'
  | 'unavailable'
  | 'error_html'
  | 'error_text'
  | 'unsupported'

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
  /** login: every password grant is refused this way, right or wrong. */
  refuse?: 'locked' | 'federated' | 'password_expired'
  /** mint, list, get, revoke, oauth: every UAA token counts as expired there. */
  accessTokens?: 'expired'
  /** list: the rows do not give the token's text, or give an empty one. */
  tokenText?: 'absent' | 'empty'
  /** The clock of the service that handles this operation is wrong by this much. */
  clockSkewMs?: number
  prettyPrint?: boolean
  /** Every connection is reset; for `*` already at the gateway, open ones at once. */
  down?: boolean
}

export interface FaultSwitches {
  /** Replaces what was set for this operation. */
  set(operation: Operation | '*', fault: Fault): void
  /** Without an operation: removes all faults. */
  clear(operation?: Operation | '*'): void
}

export interface Faults extends FaultSwitches {
  /** The fault for one request; without `fail` if this request does not fail. */
  draw(operation: Operation | undefined): Fault
  /** Whether the whole environment is down. */
  down(): boolean
  onChange(listener: () => void): void
}

export function createFaults(): Faults {
  const switched = new Map<Operation | '*', { fault: Fault; strikes: () => boolean }>()
  const listeners: (() => void)[] = []
  const changed = () => {
    for (const listener of listeners) listener()
  }
  return {
    set: (operation, fault) => {
      switched.set(operation, { fault, strikes: chance(fault) })
      changed()
    },
    clear: operation => {
      if (operation === undefined) switched.clear()
      else switched.delete(operation)
      changed()
    },
    draw: operation => {
      const own = operation === undefined ? undefined : switched.get(operation)
      const general = switched.get('*')
      const { fail, ...rest } = { ...general?.fault, ...own?.fault }
      const source = own?.fault.fail === undefined ? general : own
      const exempt = operation === 'info' && fail === 'rate_limited'
      return fail !== undefined && !exempt && source?.strikes() ? { ...rest, fail } : rest
    },
    down: () => switched.get('*')?.fault.down === true,
    onChange: listener => {
      listeners.push(listener)
    },
  }
}

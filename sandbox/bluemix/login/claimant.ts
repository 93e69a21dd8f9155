import type { User } from '../directory.ts'
import type { Fault } from '../faults.ts'
import type { Request } from '../wire/request.ts'
import type { World } from '../world.ts'

/** The user that a password grant names. */
export interface Claimant {
  kind: 'password' | 'api_key' | 'passcode'
  /** The key by which the lockout counts. A wrong API key has no user, so all of them count together. */
  name: string
  /** Only if the password, key or code is correct. */
  user: User | undefined
  problem?: Fault['refuse']
}

/** Only the login host accepts an API key as password: it is not documented for UAA itself. */
export function findClaimant(
  { directory, hosts }: World,
  { hostname }: Request,
  form: Map<string, string>,
): Claimant {
  const passcode = form.get('passcode')
  const name = form.get('username') ?? ''
  const password = form.get('password') ?? ''
  if (passcode !== undefined) {
    return { kind: 'passcode', name: 'passcode', user: directory.userByPasscode(passcode) }
  }
  if (name === 'apikey') {
    const user = hostname === hosts.login ? directory.userByApiKey(password) : undefined
    return { kind: 'api_key', name, user }
  }
  return byPassword(directory.user(name), name, password)
}

function byPassword(known: User | undefined, name: string, password: string): Claimant {
  const user = known?.password === password ? known : undefined
  const claimant = { kind: 'password' as const, name, user }
  if (known?.federated) return { ...claimant, problem: 'federated' }
  return known?.passwordExpired ? { ...claimant, problem: 'password_expired' } : claimant
}

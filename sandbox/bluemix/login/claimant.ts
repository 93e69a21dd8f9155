import type { User } from '../directory.ts'
import type { Fault } from '../faults.ts'
import type { Received } from '../wire/exchange.ts'
import type { World } from '../world.ts'

/** Who a password grant says to be. */
export interface Claimant {
  kind: 'password' | 'api_key' | 'passcode'
  /** What the lock-out counts by; wrong API keys tell no user, so they count together. */
  name: string
  /** Only where the password, key or code is right. */
  user: User | undefined
  problem?: Fault['refuse']
}

/** An API key as password is known at the login host only: nothing documents it for UAA itself. */
export function findClaimant(
  { directory, hosts }: World,
  { host }: Received,
  form: Map<string, string>,
): Claimant {
  const passcode = form.get('passcode')
  const name = form.get('username') ?? ''
  const password = form.get('password') ?? ''
  if (passcode !== undefined) {
    return { kind: 'passcode', name: 'passcode', user: directory.userByPasscode(passcode) }
  }
  if (name === 'apikey') {
    const user = host === hosts.login ? directory.userByApiKey(password) : undefined
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

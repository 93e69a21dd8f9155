import type { User } from '../directory.ts'
import type { LoginKind } from '../ledger.ts'
import type { World } from '../world.ts'

/** The result of a token request, before it becomes a response of UAA or IAM. */
export type LoginOutcome =
  | { kind: LoginKind; user: User; granted: unknown }
  | { kind: LoginKind; user?: string; refused: Refusal }

export interface Refusal {
  status: number
  code: string
  description: string
}

export function refused(
  kind: LoginKind,
  refusal: [status: number, code: string, description: string],
  user?: string,
): LoginOutcome {
  const [status, code, description] = refusal
  const outcome = { kind, refused: { status, code, description } }
  return user === undefined ? outcome : { ...outcome, user }
}

/** Records a token request in the ledger. */
export function record({ ledger }: World, outcome: LoginOutcome, at: number): void {
  const granted = 'granted' in outcome
  const user = granted ? outcome.user.name : outcome.user
  const said = granted ? 'granted' : outcome.refused.code
  ledger.login({ at, kind: outcome.kind, user, outcome: said })
}

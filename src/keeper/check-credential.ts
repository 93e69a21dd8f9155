import type { Logger } from 'pino'
import { type PullSecretRules, readCredential, readPullSecret } from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/secret-store.ts'
import { TokenError, type TokenIssuer } from '../registry-token/registry-token.ts'
import type { TakeStep } from './take-step.ts'

export interface CredentialCheck {
  /** True once per interval and namespace, at a moment of its own. */
  isDue(namespace: string): boolean
  run(namespace: string, organization: string, signal: AbortSignal): Promise<void>
}

export interface CheckOptions {
  store: SecretStore
  issuer: TokenIssuer
  rules: PullSecretRules
  takeStep: TakeStep
  everyMs: number
  now: () => Date
  logger: Logger
}

/**
 * Asks the registry, seldom, whether it still takes the credential that a Secret holds (a token
 * can be revoked by hand, or go with the person who owned it). A refused one is minted anew, once;
 * when the new one is refused too, minting more would not help: that is reported instead.
 */
export function createCredentialCheck(options: CheckOptions): CredentialCheck {
  const renewed = new Set<string>()
  return {
    isDue: createSchedule(options),
    run: (namespace, organization, signal) =>
      check({ namespace, organization }, options, renewed, signal),
  }
}

async function check(
  about: { namespace: string; organization: string },
  options: CheckOptions,
  renewed: Set<string>,
  signal: AbortSignal,
): Promise<void> {
  const { store, issuer, rules, takeStep, logger } = options
  const { namespace } = about
  const secret = await store.read(namespace)
  const text = secret && readCredential(secret, rules)
  if (secret === undefined || text === undefined) return
  if (await issuer.accepts(text, signal)) {
    renewed.delete(namespace)
    return
  }
  if (renewed.has(namespace)) throw refusedAgain()
  renewed.add(namespace)
  const { tokenId } = readPullSecret(secret, rules)
  logger.warn({ namespace, token: tokenId }, 'the registry refuses the token, minting another')
  const step = { do: 'renew', because: 'refused' } as const
  await takeStep({ ...about, step, refusedToken: tokenId }, signal)
  return check(about, options, renewed, signal)
}

/** The first check comes at a random moment, so that a restart asks nothing all at once. */
function createSchedule({ everyMs, now }: CheckOptions): (namespace: string) => boolean {
  const dueAt = new Map<string, number>()
  return namespace => {
    const time = now().getTime()
    const due = dueAt.get(namespace)
    if (due === undefined) dueAt.set(namespace, time + Math.random() * everyMs)
    if (due === undefined || due > time) return false
    dueAt.set(namespace, time + everyMs)
    return true
  }
}

function refusedAgain(): TokenError {
  return new TokenError('the registry refuses the tokens that it issues for this organization', {
    kind: 'permanent',
    scope: 'organization',
    code: 'credential_refused',
  })
}

import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import { clip } from '../failure.ts'
import { TokenError, type TokenIssuer } from '../issuer/issuer.ts'
import { type PullSecretRules, readCredential, readPullSecret } from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'
import type { TakeStep } from './actions.ts'

export interface CredentialCheck {
  /** True once per interval and namespace, at a moment of its own. */
  isDue(namespace: string): boolean
  /** False: the registry could not be asked, which says nothing against the credential. */
  run(namespace: string, organization: string, signal: AbortSignal): Promise<boolean>
}

interface CheckOptions {
  store: SecretStore
  issuer: TokenIssuer
  rules: PullSecretRules
  takeStep: TakeStep
  everyMs: number
  now: () => Date
  logger: Logger
}

const refusedAgain = 'credential_refused'
/** Namespaces come and go for years. */
const mostRemembered = 20_000

/**
 * Asks the registry, seldom, whether it still takes the credential that a Secret holds (a token
 * can be revoked by hand, or go with the person who owned it). A refused one is minted anew, once;
 * when the new one is refused too, minting more would not help: that is reported instead.
 */
export function createCredentialCheck(options: CheckOptions): CredentialCheck {
  const renewed = new LRUCache<string, true>({ max: mostRemembered })
  return {
    isDue: createSchedule(options),
    run: async (namespace, organization, signal) => {
      try {
        await check({ namespace, organization }, options, renewed, signal)
        return true
      } catch (error) {
        if (!(error instanceof TokenError) || error.code === refusedAgain) throw error
        const { code } = error
        options.logger.warn({ namespace, code }, 'the credential could not be checked')
        return false
      }
    },
  }
}

async function check(
  about: { namespace: string; organization: string },
  options: CheckOptions,
  renewed: LRUCache<string, true>,
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
  if (renewed.has(namespace)) throw newOneRefused()
  renewed.set(namespace, true)
  const { tokenId } = readPullSecret(secret, rules)
  logger.warn(
    { namespace, token: tokenId && clip(tokenId) },
    'the registry refuses the token, minting another',
  )
  const step = { do: 'renew', because: 'refused' } as const
  await takeStep({ ...about, step, refusedToken: tokenId }, signal)
  return check(about, options, renewed, signal)
}

/** The first check comes at a random moment, so that a restart asks nothing all at once. */
function createSchedule({ everyMs, now }: CheckOptions): (namespace: string) => boolean {
  const dueAt = new LRUCache<string, number>({ max: mostRemembered })
  return namespace => {
    const time = now().getTime()
    const due = dueAt.get(namespace)
    if (due === undefined) dueAt.set(namespace, time + Math.random() * everyMs)
    if (due === undefined || due > time) return false
    dueAt.set(namespace, time + everyMs)
    return true
  }
}

function newOneRefused(): TokenError {
  return new TokenError('the registry refuses the tokens that it issues for this organization', {
    kind: 'permanent',
    scope: 'organization',
    code: refusedAgain,
  })
}

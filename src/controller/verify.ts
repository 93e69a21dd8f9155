import { LRUCache } from 'lru-cache'
import PQueue from 'p-queue'
import type { Logger } from 'pino'
import { clip, framesOf } from '../failure.ts'
import { TokenError } from '../issuer/issuer.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import {
  identifyToken,
  type PullSecret,
  type PullSecretRules,
  readCredential,
} from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'
import { type Budgets, TooManyChanges } from './budgets.ts'

export interface CredentialChecks {
  /** Whether the last answer of the registry about this token was a refusal. */
  isRefused(hash: string | undefined): boolean
  /** Whether the registry has accepted this token in this term. */
  isAccepted(hash: string): boolean
  note(hash: string, accepted: boolean): void
  /** pullpass wrote this token into the Secret of the namespace. */
  wrote(namespace: string, hash: string, mintedAt: Date | undefined): void
  /** Asks the registry about the token of a Secret, if that is due. `urgent`: it is due once. */
  look(secret: PullSecret, urgent: boolean): void
  /** Asks about the token of a namespace now, whatever was answered before. */
  ask(namespace: string): void
  begin(signal: AbortSignal): void
}

interface Dependencies {
  store: SecretStore
  issuer: { accepts(text: string, signal: AbortSignal): Promise<boolean> }
  budgets: Budgets
  /** An answer may change what the namespace needs. */
  wake: (namespace: string) => void
  now: () => Date
  logger: Logger
}

interface Settings {
  rules: PullSecretRules
  everyMs: number
}

interface Credential {
  hash: string
  dueAt: number
  /** The registry may not know the token before this time. */
  knownAt: number
}

interface State extends Dependencies {
  settings: Settings
  credentials: LRUCache<string, Credential>
  /** By hash of the token. */
  answers: LRUCache<string, boolean>
  queue: PQueue
  queued: Set<string>
  signal: AbortSignal
}

/** Namespaces come and go for years. */
const mostRemembered = 20_000
/** Checks at a time. They take no worker of the controller. */
const concurrency = 2
const unansweredMs = 60_000
const refusedMs = 300_000
/** A refusal counts when the token was minted this long ago. */
const settlesMs = 60_000
const unsettledMs = 10_000

/**
 * Asks the registry whether it accepts the token that a Secret holds. The answer counts for the next
 * plan of the namespace.
 *
 * | the token                                  | asked                                            |
 * |--------------------------------------------|--------------------------------------------------|
 * | another than before, and not written by us | at once; often: with the back-off of a namespace |
 * | not shown by the first list or a later one | once at once, then as below                      |
 * | else                                       | every `verifyEverySeconds`, first at a random    |
 * |                                            | moment, so that a restart asks nothing all at    |
 * |                                            | once                                             |
 * | no answer                                  | again after a minute                             |
 * | refused                                    | again after five minutes; in the first minute    |
 * |                                            | after the mint, when a refusal says nothing,     |
 * |                                            | after ten seconds                                |
 */
export function createCredentialChecks(
  dependencies: Dependencies,
  settings: Settings,
): CredentialChecks {
  const state: State = {
    ...dependencies,
    settings,
    credentials: new LRUCache({ max: mostRemembered }),
    answers: new LRUCache({ max: mostRemembered }),
    queue: new PQueue({ concurrency }),
    queued: new Set(),
    signal: AbortSignal.abort(),
  }
  const { credentials, answers } = state
  return {
    isRefused: hash => hash !== undefined && answers.get(hash) === false,
    isAccepted: hash => answers.get(hash) === true,
    note: (hash, accepted) => void answers.set(hash, accepted),
    wrote: (namespace, hash, mintedAt) =>
      void credentials.set(namespace, {
        ...later(state, hash),
        knownAt: (mintedAt?.getTime() ?? 0) + settlesMs,
      }),
    look: (secret, urgent) => look(state, secret, urgent),
    ask: namespace => enqueue(state, namespace, 'now'),
    begin: signal => {
      state.signal = signal
      credentials.clear()
      answers.clear()
    },
  }
}

function later({ now, settings }: State, hash: string): Credential {
  return { hash, dueAt: now().getTime() + Math.random() * settings.everyMs, knownAt: 0 }
}

function look(state: State, { namespace, token }: PullSecret, urgent: boolean): void {
  const { credentials, answers, now, settings } = state
  if (token === undefined) return
  const known = credentials.get(namespace)
  const isChanged = known !== undefined && known.hash !== token.hash
  if (known === undefined || isChanged) credentials.set(namespace, later(state, token.hash))
  const isUnasked = !answers.has(token.hash)
  const isDue = known !== undefined && !isChanged && known.dueAt <= now().getTime()
  if (isDue) known.dueAt = now().getTime() + settings.everyMs
  if (isDue || isChanged || (urgent && isUnasked)) enqueue(state, namespace, token.hash)
}

/** Once at a time for each credential. */
function enqueue(state: State, namespace: string, hash: string): void {
  const { queue, queued, budgets, logger, signal } = state
  const key = `${namespace}/${hash}`
  if (queued.has(key)) return
  queued.add(key)
  const run = async () => {
    if (signal.aborted) return
    budgets.check(namespace, 'check')
    budgets.take(namespace, 'check')
    await check(state, namespace, signal)
  }
  const failed = (error: unknown) => {
    if (signal.aborted) return
    const { code } = error as { code?: string }
    if (error instanceof TokenError) {
      logger.warn({ namespace, code }, 'cannot check the credential')
    } else if (error instanceof KubernetesError) {
      logger.debug({ namespace }, 'cannot read the Secret for a check')
    } else if (!(error instanceof TooManyChanges)) {
      logger.error({ namespace, at: framesOf(error) }, 'cannot check the credential')
    }
    again(state, namespace, error instanceof TooManyChanges ? error.retryAfterMs : unansweredMs)
  }
  void queue
    .add(run)
    .catch(failed)
    .finally(() => queued.delete(key))
}

function again(state: State, namespace: string, ms: number): void {
  const known = state.credentials.get(namespace)
  if (known !== undefined) known.dueAt = Math.min(known.dueAt, state.now().getTime() + ms)
}

async function check(state: State, namespace: string, signal: AbortSignal): Promise<void> {
  const { store, issuer, settings, answers, credentials, logger, wake } = state
  const secret = await store.read(namespace)
  const text = secret && readCredential(secret, settings.rules)
  if (text === undefined) return
  const { hash, id } = identifyToken(text)
  const accepted = await issuer.accepts(text, signal)
  if (signal.aborted) return
  const known = credentials.get(namespace)
  if (!accepted && known?.hash === hash && known.knownAt > state.now().getTime()) {
    return again(state, namespace, unsettledMs)
  }
  if (!accepted) again(state, namespace, refusedMs)
  if (!accepted && answers.get(hash) !== false) {
    logger.warn({ namespace, token: id && clip(id) }, 'the registry refuses the token')
  }
  answers.set(hash, accepted)
  wake(namespace)
}

import { setTimeout as sleep } from 'node:timers/promises'
import { findRow, type Inventory } from '../issuer/inventory.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import {
  type PullSecret,
  type PullSecretRules,
  readPullSecret,
} from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'
import { type Alone, CleanUpError } from './alone.ts'
import type { Orphans } from './orphans.ts'

interface Dependencies {
  index: PullSecretIndex
  store: SecretStore
  inventory: Inventory
  orphans: Orphans
  alone: Alone
  report: Report
}

/** Lines for people. */
export interface Report {
  done(what: string): void
  waits(what: string): void
}

interface Settings {
  rules: PullSecretRules
  /** The tokens are of a former name of this cluster: those of opted-in namespaces go too. */
  former: boolean
}

interface Work extends Dependencies {
  settings: Settings
  signal: AbortSignal
}

/**
 * Takes back at once, without the grace, what was made for namespaces that are not opted in any
 * more; and, of a former name, what opted-in namespaces have replaced. The rules are those of the
 * controller: a Secret is deleted only if a list says that its token belongs to the namespace, and
 * `revocationReason` decides about tokens.
 *
 * @throws TokenError, KubernetesError, CleanUpError: what was done until then stays done.
 */
export async function cleanUp(
  dependencies: Dependencies,
  settings: Settings,
  signal: AbortSignal,
): Promise<void> {
  const work: Work = { ...dependencies, settings, signal }
  const { index, inventory, alone, report } = work
  await alone.obtain()
  for (const namespace of [...index.names()]) {
    const organizations = await alone.keep()
    const secret = await needlessSecret(namespace, work)
    if (secret === undefined || !isItsOwn(secret, inventory, organizations)) continue
    await remove(secret, work)
    report.done(`${namespace}: Secret deleted`)
  }
  await revoke(work)
  // A namespace is gone, or a token is spare, if two lists in a row say so.
  await alone.obtain()
  await revoke(work)
  const left = candidates(work)
  if (left.length > 0) throw new CleanUpError(`cannot revoke the tokens of ${left.join(', ')}`)
}

async function revoke(work: Work): Promise<void> {
  const { orphans, alone, report, signal } = work
  for (const namespace of candidates(work)) {
    await alone.keep()
    let count = await orphans.collect(namespace, signal)
    for (let ms = orphans.pausedMs(); ms > 0; ms = orphans.pausedMs()) {
      await sleep(ms, undefined, { signal })
      await alone.keep()
      count += await orphans.collect(namespace, signal)
    }
    if (count > 0) report.done(`${namespace}: ${count === 1 ? 'token' : `${count} tokens`} revoked`)
  }
}

/** Namespaces with live tokens that nobody needs. */
function candidates({ index, orphans, settings }: Work): string[] {
  const isNeedless = (name: string) => settings.former || index.namespaces.get(name) === undefined
  return [...orphans.namespaces()].filter(isNeedless)
}

function isItsOwn(
  { namespace, token }: PullSecret,
  inventory: Inventory,
  organizations: readonly string[],
): boolean {
  return token !== undefined && findRow(inventory, organizations, token)?.namespace === namespace
}

/** Secrets change while they are looked at: a leader beside us writes the end of the grace. */
const mostTries = 5

async function remove(secret: PullSecret, work: Work, triesLeft = mostTries): Promise<void> {
  const { store, index } = work
  const { namespace, resourceVersion } = secret
  try {
    await store.remove(secret)
    // Its tokens are looked for next, and the watch may report the removal only later.
    index.secrets.remove({ metadata: { namespace, resourceVersion } })
  } catch (error) {
    const isChanged = error instanceof KubernetesError && error.status === 409
    if (triesLeft === 0 || !isChanged) throw error
    const now = await needlessSecret(namespace, work)
    const isSame = now?.token?.hash === secret.token?.hash
    if (now !== undefined && isSame) await remove(now, work, triesLeft - 1)
  }
}

/** The Secret of a namespace as it is now, where it is ours and the namespace is not opted in. */
async function needlessSecret(
  namespace: string,
  { store, index, settings }: Work,
): Promise<PullSecret | undefined> {
  const live = await store.readNamespace(namespace)
  if (live !== undefined && index.readNamespace(live) !== undefined) return undefined
  const found = await store.read(namespace)
  const secret = found && readPullSecret(found, settings.rules)
  return secret?.ours ? secret : undefined
}

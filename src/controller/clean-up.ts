import type { Inventory } from '../issuer/inventory.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import {
  type PullSecret,
  type PullSecretRules,
  readPullSecret,
} from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'
import type { Orphans } from './orphans.ts'

interface Dependencies {
  index: PullSecretIndex
  store: SecretStore
  inventory: Inventory
  orphans: Orphans
  /** Reads another list of every organization in use. Rejects where one cannot be read. */
  list: () => Promise<readonly string[]>
  marks: Marks
  /** Called with a line for each thing that was done. */
  done: (what: string) => void
}

/** The marks of leaders in the lists. */
export interface Marks {
  /** The nonces on the Lease now. */
  onLease(): Promise<ReadonlySet<string>>
  /** Leaves a mark of ours: nobody leads. */
  leave(organization: string): Promise<void>
}

/** Nothing was done, or not all. */
export class CleanUpError extends Error {
  override readonly name = 'CleanUpError'
}

/**
 * Takes back at once, without the grace, what was made for namespaces that are not opted in any
 * more. The rules are those of the controller: a Secret is deleted only if a list says that its token
 * belongs to the namespace, and `revocationReason` decides about tokens. Opted-in namespaces are left
 * to the controller.
 *
 * @throws TokenError, KubernetesError, CleanUpError: what was done until then stays done.
 */
export async function cleanUp(
  dependencies: Dependencies,
  { rules }: { rules: PullSecretRules },
  signal: AbortSignal,
): Promise<void> {
  const { index, inventory, orphans, list, done } = dependencies
  const organizations = await assertAlone(dependencies)
  for (const namespace of [...index.names()]) {
    const secret = await needlessSecret(namespace, dependencies, rules)
    if (secret === undefined || !isItsOwn(secret, inventory, organizations)) continue
    await remove(secret, dependencies, rules)
    done(`${namespace}: Secret deleted`)
  }
  await revoke(dependencies, signal)
  // A namespace is gone if it is missing in two lists.
  await list()
  await revoke(dependencies, signal)
  const left = needless(dependencies).filter(orphans.pending)
  if (left.length > 0) throw new CleanUpError(`cannot revoke the tokens of ${left.join(', ')}`)
}

async function revoke(dependencies: Dependencies, signal: AbortSignal): Promise<void> {
  const { orphans, done } = dependencies
  for (const namespace of needless(dependencies)) {
    const count = await orphans.collect(namespace, signal)
    if (count > 0) done(`${namespace}: ${count === 1 ? 'token' : `${count} tokens`} revoked`)
  }
}

function needless({ index, orphans }: Dependencies): string[] {
  return [...orphans.namespaces()].filter(name => index.namespaces.get(name) === undefined)
}

/**
 * The rule of `identity.ts`, with the mark of the leader or, where nobody leads, one of our own: two
 * lists of each organization show a mark that is on our Lease, and no other.
 */
async function assertAlone({ inventory, list, marks }: Dependencies): Promise<readonly string[]> {
  const look = async (organization: string) => {
    const { unsupported, marks: shown } = inventory.organization(organization)
    if (unsupported) {
      const message = `the environment cannot list the tokens of organization "${organization}"`
      throw new CleanUpError(`${message}: nothing is revoked`)
    }
    const ours = await marks.onLease()
    const nonces = [...shown().keys()]
    if (nonces.some(nonce => !ours.has(nonce))) {
      throw new CleanUpError(
        'another pullpass uses the name of this cluster: nothing is revoked. Set clusterName to another name in one of the two',
      )
    }
    return nonces.length > 0
  }
  for (const each of await list()) if (!(await look(each))) await marks.leave(each)
  const organizations = await list()
  for (const each of organizations) {
    if (await look(each)) continue
    throw new CleanUpError(`organization "${each}" does not list our mark: nothing is revoked`)
  }
  return organizations
}

function isItsOwn(
  { namespace, token }: PullSecret,
  inventory: Inventory,
  organizations: readonly string[],
): boolean {
  if (token === undefined) return false
  const rows = organizations.map(each => inventory.organization(each).find(token))
  return rows.some(row => row?.namespace === namespace)
}

/** Secrets change while they are looked at: a leader beside us writes the end of the grace. */
const mostTries = 5

async function remove(
  secret: PullSecret,
  dependencies: Dependencies,
  rules: PullSecretRules,
  triesLeft = mostTries,
): Promise<void> {
  const { store, index } = dependencies
  const { namespace, resourceVersion } = secret
  try {
    await store.remove(secret)
    // Its tokens are looked for next, and the watch may report the removal only later.
    index.secrets.remove({ metadata: { namespace, resourceVersion } })
  } catch (error) {
    const isChanged = error instanceof KubernetesError && error.status === 409
    if (triesLeft === 0 || !isChanged) throw error
    const now = await needlessSecret(namespace, dependencies, rules)
    const isSame = now?.token?.hash === secret.token?.hash
    if (now !== undefined && isSame) await remove(now, dependencies, rules, triesLeft - 1)
  }
}

/** The Secret of a namespace as it is now, where it is ours and the namespace is not opted in. */
async function needlessSecret(
  namespace: string,
  { store, index }: Dependencies,
  rules: PullSecretRules,
): Promise<PullSecret | undefined> {
  const live = await store.readNamespace(namespace)
  if (live !== undefined && index.readNamespace(live) !== undefined) return undefined
  const found = await store.read(namespace)
  const secret = found && readPullSecret(found, rules)
  return secret?.ours ? secret : undefined
}

import { cleanUp, type Marks } from '../controller/clean-up.ts'
import type { Environment } from '../controller/environment.ts'
import { createNonces } from '../controller/nonces.ts'
import { createOrphans, type Orphans } from '../controller/orphans.ts'
import { markDescription } from '../issuer/inventory.ts'
import {
  createDependencies,
  createEnvironmentOf,
  type Dependencies,
  readClusterId,
  type ServiceOptions,
} from '../service.ts'

/**
 * Takes back what was made for namespaces that are not opted in any more, beside a running pullpass
 * or without one. Calls `done` with each thing that was done.
 *
 * @throws TokenError, KubernetesError, CleanUpError.
 */
export async function cleanUpOnce(
  options: ServiceOptions,
  done: (what: string) => void,
): Promise<void> {
  const dependencies = createDependencies({ ...options, standalone: true })
  const { issuer, watches, client, index, store, rules } = dependencies
  const ending = new AbortController()
  const { signal } = ending
  try {
    for (const watch of watches) watch.start()
    issuer.start()
    await Promise.all(watches.map(watch => watch.whenSynced()))
    const cluster = await readClusterId(dependencies)
    const environment = createEnvironmentOf(dependencies, cluster, () => {})
    const { inventory } = environment
    inventory.begin(signal)
    const { list, organizations } = createList(environment, signal)
    const orphans = createOrphansOf(dependencies, environment, organizations)
    const marks = createMarks(dependencies, environment, cluster, signal)
    await cleanUp({ index, store, inventory, orphans, list, marks }, { rules, done }, signal)
  } finally {
    ending.abort()
    await Promise.all(watches.map(watch => watch.stop()))
    await Promise.all([issuer.close(), client.close()])
  }
}

function createList({ inventory, organizationsInUse }: Environment, signal: AbortSignal) {
  let inUse: string[] = []
  return {
    organizations: () => inUse,
    list: async () => {
      inUse = [...(await organizationsInUse.all())]
      for (const organization of inUse) await inventory.refresh(organization, signal)
      return inUse
    },
  }
}

function createMarks(
  { notes, clock }: Dependencies,
  { issuer, inventory }: Environment,
  cluster: string,
  signal: AbortSignal,
): Marks {
  const nonces = createNonces({ note: notes.marks, now: clock.now })
  return {
    onLease: () => {
      nonces.reload()
      return nonces.load()
    },
    leave: async organization => {
      const description = markDescription(cluster, await nonces.next(organization))
      const token = await issuer.mint({ organization, description, permanent: false }, signal)
      nonces.used(organization)
      inventory.minted(organization, description, token)
    },
  }
}

function createOrphansOf(
  { index, store, rules, clock, logger }: Dependencies,
  { issuer, inventory }: Environment,
  organizations: () => Iterable<string>,
): Orphans {
  const assertLeading = () => {}
  // It is asked before anything is done.
  const mayRevoke = () => true
  return createOrphans(
    { index, store, issuer, inventory, mayRevoke, assertLeading, now: clock.now, logger },
    { rules, rotateGraceMs: 0 },
    {
      organizations,
      // Opted-in namespaces are not looked at: nothing of theirs is revoked.
      look: (_namespace, _state, secret) => {
        const rows = [...organizations()].map(each =>
          secret?.token === undefined ? undefined : inventory.organization(each).find(secret.token),
        )
        const row = rows.find(each => each !== undefined)
        return { row, step: { do: 'nothing', because: 'not_opted_in' } }
      },
    },
  )
}

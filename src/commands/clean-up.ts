import type { Logger } from 'pino'
import { Registry } from 'prom-client'
import { cleanUp, type Marks } from '../controller/clean-up.ts'
import { createEnvironment, type Environment } from '../controller/environment.ts'
import { createNonces } from '../controller/nonces.ts'
import type { Note } from '../controller/organizations.ts'
import { createOrphans, type Orphans } from '../controller/orphans.ts'
import type { OrganizationRules } from '../controller/plan.ts'
import { markDescription } from '../issuer/inventory.ts'
import type { Issuer } from '../issuer/issuer.ts'
import { type KubernetesClient, readClusterId } from '../kubernetes/client.ts'
import type { ListWatch } from '../kubernetes/list-watch.ts'
import type { ServerClock } from '../kubernetes/server-clock.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import type { PullSecretRules } from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'

interface CleanUpDependencies {
  client: KubernetesClient
  watches: ListWatch[]
  index: PullSecretIndex
  store: SecretStore
  issuer: Issuer
  /** Annotations of the Lease. */
  notes: { organizations: Note; marks: Note }
  clock: ServerClock
  logger: Logger
}

interface CleanUpSettings {
  rules: PullSecretRules
  organizations: OrganizationRules
  /** Default: the UID of kube-system. */
  clusterName: string | undefined
  mintsPerMinute: number
  listEveryMs: number
}

/**
 * Deletes the Secrets and revokes the tokens of namespaces that are not opted in, beside a running
 * pullpass or without one. Calls `done` with a line for each thing that was done.
 *
 * @throws TokenError, KubernetesError, CleanUpError.
 */
export async function cleanUpOnce(
  dependencies: CleanUpDependencies,
  settings: CleanUpSettings,
  done: (what: string) => void,
): Promise<void> {
  const { client, watches, index, store, issuer, logger } = dependencies
  const { rules, clusterName } = settings
  const ending = new AbortController()
  const { signal } = ending
  try {
    for (const watch of watches) watch.start()
    issuer.start()
    await Promise.all(watches.map(watch => watch.whenSynced()))
    const cluster = clusterName ?? (await readClusterId({ client, logger }))
    const environment = createEnvironmentOf(dependencies, settings, cluster)
    const { inventory } = environment
    inventory.begin(signal)
    const { list, organizations } = createList(environment, signal)
    const orphans = createOrphansOf(dependencies, settings, { environment, organizations })
    const marks = createMarks(dependencies, environment, { cluster, signal })
    await cleanUp({ index, store, inventory, orphans, list, marks, done }, { rules }, signal)
  } finally {
    ending.abort()
    await Promise.all(watches.map(watch => watch.stop()))
    await Promise.all([issuer.close(), client.close()])
  }
}

function createEnvironmentOf(
  { issuer, index, notes, clock, logger }: CleanUpDependencies,
  { organizations, mintsPerMinute, listEveryMs }: CleanUpSettings,
  cluster: string,
): Environment {
  // Nobody reads the metrics of a command.
  const metrics = new Registry()
  return createEnvironment(
    { issuer, index, notes, assertLeading: () => {}, now: clock.now, logger, metrics },
    { cluster, organizations, mintsPerMinute, listEveryMs },
  )
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
  { notes, clock }: CleanUpDependencies,
  { issuer, inventory }: Environment,
  { cluster, signal }: { cluster: string; signal: AbortSignal },
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
  { index, store, clock, logger }: CleanUpDependencies,
  { rules }: CleanUpSettings,
  { environment, organizations }: { environment: Environment; organizations: () => string[] },
): Orphans {
  const { issuer, inventory } = environment
  const assertLeading = () => {}
  // `cleanUp` checks the marks before anything is revoked.
  const mayRevoke = () => true
  return createOrphans(
    { index, store, issuer, inventory, mayRevoke, assertLeading, now: clock.now, logger },
    { rules, rotateGraceMs: 0 },
    {
      organizations,
      // Nothing of an opted-in namespace is revoked.
      look: (_namespace, _state, secret) => {
        const rows = organizations().map(each =>
          secret?.token === undefined ? undefined : inventory.organization(each).find(secret.token),
        )
        const row = rows.find(each => each !== undefined)
        return { row, step: { do: 'nothing', because: 'not_opted_in' } }
      },
    },
  )
}

import type { Logger } from 'pino'
import { Registry } from 'prom-client'
import { type Alone, createAlone, createLeaseView, nobodyLeads } from '../controller/alone.ts'
import { cleanUp, type Report } from '../controller/clean-up.ts'
import {
  createEnvironment,
  type Environment,
  type EnvironmentSettings,
} from '../controller/environment.ts'
import { createNonces } from '../controller/nonces.ts'
import type { Note } from '../controller/organizations.ts'
import { createOrphans, type Look, type Orphans } from '../controller/orphans.ts'
import { findRow, type InventoryToken, readDescription } from '../issuer/inventory.ts'
import type { Issuer } from '../issuer/issuer.ts'
import { type KubernetesClient, readClusterId } from '../kubernetes/client.ts'
import type { LeaseStore } from '../kubernetes/lease.ts'
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
  lease: LeaseOfLeader
  clock: ServerClock
  logger: Logger
}

interface LeaseOfLeader {
  read: LeaseStore['read']
  /** Annotations of the Lease. */
  notes: { organizations: Note; marks: Note }
}

interface CleanUpSettings {
  rules: PullSecretRules
  /** Default: the UID of kube-system. */
  clusterName: string | undefined
  /** A former name of this cluster, whose tokens are taken back. */
  formerName: string | undefined
  /** For the name of a cluster. */
  environment: (cluster: string) => EnvironmentSettings
}

/**
 * Deletes the Secrets and revokes the tokens of namespaces that are not opted in, beside a running
 * pullpass or without one.
 *
 * @throws TokenError, KubernetesError, CleanUpError.
 */
export async function cleanUpOnce(
  dependencies: CleanUpDependencies,
  settings: CleanUpSettings,
  report: Report,
): Promise<void> {
  const { client, watches, issuer, logger } = dependencies
  const ending = new AbortController()
  try {
    for (const watch of watches) watch.start()
    issuer.start()
    await Promise.all(watches.map(watch => watch.whenSynced()))
    const current = settings.clusterName ?? (await readClusterId({ client, logger }))
    await cleanUpFor(current, dependencies, { settings, report, signal: ending.signal })
  } finally {
    ending.abort()
    await Promise.all(watches.map(watch => watch.stop()))
    await Promise.all([issuer.close(), client.close()])
  }
}

interface Run {
  settings: CleanUpSettings
  /** What the descriptions of tokens that may be taken back begin with. */
  cluster: string
  /** The name of this cluster now. */
  current: string
  report: Report
  signal: AbortSignal
}

async function cleanUpFor(
  current: string,
  dependencies: CleanUpDependencies,
  run: { settings: CleanUpSettings; report: Report; signal: AbortSignal },
): Promise<void> {
  const { settings, report, signal } = run
  const { index, store } = dependencies
  const cluster = settings.formerName ?? current
  const all: Run = { settings, cluster, current, report, signal }
  const environment = createEnvironmentOf(dependencies, all)
  const { inventory, identity } = environment
  inventory.begin(signal)
  identity.begin(signal)
  const lists = createLists(environment, signal)
  const alone = createAloneOf(dependencies, environment, { lists, run: all })
  const orphans = createOrphansOf(dependencies, environment, { lists, alone, run: all })
  try {
    await cleanUp(
      { index, store, inventory, orphans, alone, report },
      { rules: settings.rules, former: cluster !== current },
      signal,
    )
  } finally {
    // It expires by itself.
    await identity.takeBack().catch(() => {})
  }
}

function createEnvironmentOf(
  { issuer, index, lease, clock, logger }: CleanUpDependencies,
  { settings, cluster }: Run,
): Environment {
  // Nobody reads the metrics of a command.
  const metrics = new Registry()
  const { notes } = lease
  return createEnvironment(
    { issuer, index, notes, assertLeading: () => {}, now: clock.now, logger, metrics },
    settings.environment(cluster),
  )
}

interface Lists {
  organizations(): string[]
  /** Reads one of every organization in use. */
  list(): Promise<string[]>
}

function createLists({ inventory, organizationsInUse }: Environment, signal: AbortSignal): Lists {
  let inUse: string[] = []
  return {
    organizations: () => inUse,
    list: async () => {
      // A leader beside us forgets those that hold nothing of ours.
      organizationsInUse.reload()
      inUse = [...(await organizationsInUse.all())]
      for (const organization of inUse) await inventory.refresh(organization, signal)
      return inUse
    },
  }
}

function createAloneOf(
  { lease, clock }: CleanUpDependencies,
  { inventory, identity }: Environment,
  { lists, run }: { lists: Lists; run: Run },
): Alone {
  const { settings, cluster, current, report, signal } = run
  const nonces = createNonces({ note: lease.notes.marks, now: clock.now })
  const onLease = () => {
    nonces.reload()
    return nonces.load()
  }
  // A leader leaves its marks under the present name only.
  const view = cluster === current ? createLeaseView({ read: lease.read }) : nobodyLeads
  const { listEveryMs } = settings.environment(cluster)
  return createAlone(
    { list: lists.list, lease: view, identity, nonces: onLease, inventory, waits: report.waits },
    { listEveryMs },
    signal,
  )
}

function createOrphansOf(
  { index, store, clock, logger }: CleanUpDependencies,
  { issuer, inventory }: Environment,
  { lists, alone, run }: { lists: Lists; alone: Alone; run: Run },
): Orphans {
  const { organizations } = lists
  const mayRevoke = ({ organization }: InventoryToken) => alone.mayRevoke(organization)
  return createOrphans(
    { index, store, issuer, inventory, mayRevoke, assertLeading: () => {}, now: clock.now, logger },
    { rules: run.settings.rules, rotateGraceMs: 0 },
    { organizations, look: createLook({ inventory }, { organizations, run }) },
  )
}

/**
 * Of an opted-in namespace only tokens of a former name are revoked, beside a Secret that holds one
 * of the present name.
 */
function createLook(
  { inventory }: { inventory: Environment['inventory'] },
  { organizations, run }: { organizations: () => string[]; run: Run },
): Look {
  const { cluster, current } = run
  return (namespace, state, secret) => {
    const token = secret?.token
    const row = token && findRow(inventory, organizations(), token)
    const described = row && readDescription(current, row.description)
    const isOfNow = described !== undefined && 'namespace' in described
    const isReplaced =
      cluster !== current && state !== undefined && isOfNow && described.namespace === namespace
    return { row, step: { do: 'nothing', because: isReplaced ? 'ready' : 'not_opted_in' } }
  }
}

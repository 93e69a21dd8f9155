import { pino } from 'pino'
import { Registry } from 'prom-client'
import { createController } from '../../../src/controller/controller.ts'
import { createEnvironment } from '../../../src/controller/environment.ts'
import { createFailureStore } from '../../../src/failure.ts'
import { createPullSecretIndex } from '../../../src/pull-secret/cache.ts'
import { type ModelCluster, registryHost } from './cluster.ts'
import type { ModelEnvironment } from './environment.ts'
import type { Owner, VirtualTime } from './virtual-time.ts'

/** What a release of pullpass is set to. */
export interface SiteSettings {
  clusterName: string
  secretName: string
  organization: string
  rotateAfterMs: number | undefined
}

/** One replica. */
export interface Process {
  owner: Owner
  /** Reports to the controller that it leads, or no longer does. */
  change: (leading: boolean) => void
}

/** A cluster with a release of pullpass in it. */
export interface Site {
  cluster: ModelCluster
  settings: SiteSettings
  replicas: Process[]
  holder: Process | undefined
}

export interface World {
  time: VirtualTime
  random: () => number
  environment: ModelEnvironment
  level: string
  /** The site deletes its Secret of this namespace. */
  onRemove: (site: Site, namespace: string) => void
}

const minute = 60_000
const leaseMs = 15_000
export const listEveryMs = minute
export const otherOrganization = 'beta'

export function organizationRules(settings: SiteSettings) {
  return {
    organization: settings.organization,
    namespaceOrganizations: {},
    selectableOrganizations: [{ organization: otherOrganization, namespaces: ['*'] }],
  }
}

export function createSite(cluster: ModelCluster, settings: SiteSettings, world: World): Site {
  const site: Site = { cluster, settings, replicas: [], holder: undefined }
  startReplica(site, world)
  startReplica(site, world)
  return site
}

export function startReplica(site: Site, world: World): Process {
  const { time } = world
  const owner: Owner = { state: 'running', held: [] }
  const process: Process = { owner, change: () => {} }
  time.within(owner, () => buildReplica(site, process, world))
  site.replicas.push(process)
  elect(site, world)
  return process
}

function buildReplica(site: Site, process: Process, world: World): void {
  const { time, environment, level } = world
  const { cluster, settings } = site
  const rules = { secretName: settings.secretName, registryHost }
  const index = createPullSecretIndex(rules)
  const organizations = organizationRules(settings)
  const logger = pino({
    level,
    base: { site: cluster.name },
    timestamp: () => `,"time":"${new Date(time.now()).toISOString().slice(5, 23)}"`,
  })
  const metrics = new Registry()
  const now = () => new Date(time.now())
  const leading = () => site.holder === process && process.owner.state === 'running'
  const notes = { organizations: cluster.note('organizations'), marks: cluster.note('marks') }
  const assertLeading = () => {
    if (!leading()) throw new Error('another replica leads')
  }
  cluster.watch(index, settings.secretName, process.owner)
  const controller = createController(
    {
      index,
      store: cluster.store(rules, namespace => world.onRemove(site, namespace)),
      leadership: {
        leading,
        onChange: listener => {
          process.change = listener
        },
        annotate: () => {},
        onAnnotations: () => {},
      },
      problems: { store: createFailureStore(), report: async () => {} },
      environment: createEnvironment(
        {
          issuer: environment.issuer(cluster.name),
          index,
          notes,
          assertLeading,
          now,
          logger,
          metrics,
        },
        { cluster: settings.clusterName, organizations, mintsPerMinute: 120, listEveryMs },
      ),
      now,
      logger,
      metrics,
    },
    {
      cluster: settings.clusterName,
      rules,
      organizations,
      concurrency: 4,
      rotateAfterMs: settings.rotateAfterMs,
      rotateGraceMs: 2 * minute,
      revokeGraceMs: 3 * minute,
      verifyEveryMs: 10 * minute,
      listEveryMs,
      listAgainMs: leaseMs,
      resyncMs: minute,
    },
  )
  controller.start()
}

/** Who leads: nobody takes the Lease from a silent leader before its duration is over. */
function elect(site: Site, { time }: World): void {
  const { holder } = site
  if (holder?.owner.state === 'running') return
  const take = () => {
    if (site.holder !== holder || site.holder?.owner.state === 'running') return
    const next = site.replicas.find(({ owner }) => owner.state === 'running')
    if (next === undefined) return
    site.holder = next
    time.after(20, () => next.change(true), next.owner)
  }
  time.after(holder === undefined ? 50 : leaseMs, take)
}

export function stopProcess(site: Site, process: Process, world: World): void {
  if (process.owner.state !== 'running') return
  process.owner.state = 'stopped'
  if (site.holder === process) elect(site, world)
}

export function continueProcess(site: Site, process: Process, world: World): void {
  if (process.owner.state !== 'stopped') return
  world.time.resume(process.owner)
  const notice = () => {
    if (site.holder !== process) process.change(false)
  }
  world.time.after(100, notice, process.owner)
  elect(site, world)
}

/** Whatever it was doing. `gracefully`: the Lease is given back. */
export function endProcess(site: Site, process: Process, gracefully: boolean, world: World): void {
  process.owner.state = 'ended'
  site.replicas = site.replicas.filter(each => each !== process)
  if (site.holder !== process) return
  if (gracefully) site.holder = undefined
  elect(site, world)
}

/** With other settings, or on caches that start anew. */
export function restartAll(site: Site, settings: SiteSettings, world: World): void {
  site.settings = settings
  for (const each of [...site.replicas]) endProcess(site, each, true, world)
  startReplica(site, world)
  startReplica(site, world)
}

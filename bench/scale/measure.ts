import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Secret } from '@kubernetes/client-node'
import { waitFor } from '../../sandbox/processes.ts'
import type { Replica } from '../../sandbox/replicas/replica.ts'
import { createNamespace, organizations, type Site, type SiteOptions, startSite } from './site.ts'
import type { Measured } from './table.ts'
import { countTraffic } from './traffic.ts'

const fillMs = 20 * 60_000
const restMs = 125_000
const afterwardsMs = 20_000

/** Fills all namespaces, rests, kills the leader, and ends everything that it started. */
export async function measure(
  options: SiteOptions,
  progress: (what: string) => void,
): Promise<Measured> {
  const site = await startSite(options, progress)
  try {
    progress('filling')
    const { replicas, leader, filled } = await fill(site, options.namespaces)
    const cpuSeconds = await cpuSecondsOf(leader)
    progress(`resting for ${restMs / 1000} s`)
    // The second list of a term follows the first after the duration of the Lease.
    await whenListed(site, 2)
    const rested = countTraffic(site.environment)
    await sleep(restMs)
    const rest = rested()
    const leaderBytes = await peakBytesOf(leader)
    progress('killing the leader')
    const successor = replicas.find(replica => replica !== leader) as Replica
    const failover = await replace(site, { leader, successor }, options.namespaces)
    for (const warning of warningsOf(replicas)) progress(warning)
    return {
      ...options,
      filled: filled.traffic,
      fillSeconds: filled.seconds,
      cpuSeconds,
      leaderBytes,
      rest,
      ...failover,
      successorBytes: await peakBytesOf(successor),
      served: await countServed(site),
      liveTokens: site.environment.ledger.liveTokens().length,
    }
  } finally {
    await site.stop()
  }
}

async function fill({ environment, startReplicas }: Site, namespaces: number) {
  const since = countTraffic(environment)
  const replicas = await startReplicas()
  let leader: Replica | undefined
  const isFilled = async () => {
    await sleep(500)
    leader ??= await leaderOf(replicas)
    return leader !== undefined && (await readyAt(leader)) >= namespaces
  }
  await waitFor(isFilled, { withinMs: fillMs, what: 'all namespaces to have a Secret' })
  const traffic = since()
  return { replicas, leader: leader as Replica, filled: { traffic, seconds: traffic.seconds } }
}

async function leaderOf(replicas: readonly Replica[]): Promise<Replica | undefined> {
  for (const replica of replicas) if (await replica.leads()) return replica
  return undefined
}

/** The number of namespaces whose Secret is ready, as the process reports it. */
async function readyAt({ pullpass, name }: Replica): Promise<number> {
  const process = pullpass.process()
  if (!process.running()) {
    throw new Error(`${name} ended:\n${process.output().slice(-2000)}`)
  }
  return pullpass.metric('pullpass_namespaces{state="ready"}').catch(() => 0)
}

async function whenListed({ environment }: Site, times: number, since = 0): Promise<void> {
  const lists = (name: string) =>
    environment.ledger.lists().filter(each => each.organization === name && each.at >= since)
  const isListed = async () => organizations.every(each => lists(each).length >= times)
  await waitFor(isListed, { withinMs: 120_000, what: 'the lists of all organizations' })
}

/** From the kill until the other process leads, has listed, and serves a new namespace. */
async function replace(
  site: Site,
  { leader, successor }: { leader: Replica; successor: Replica },
  namespaces: number,
): Promise<Pick<Measured, 'failoverSeconds' | 'afterwards'>> {
  const { environment, cluster } = site
  const begin = performance.now()
  const killedAt = environment.clock.now()
  const since = countTraffic(environment)
  await leader.kill()
  await createNamespace(cluster, 'bench-new', namespaces)
  const isServed = async () => (await cluster.secret('bench-new')) !== undefined
  await waitFor(isServed, { withinMs: 300_000, what: 'another leader to serve a new namespace' })
  await whenListed(site, 1, killedAt)
  const areReady = async () => (await readyAt(successor)) > namespaces
  await waitFor(areReady, { withinMs: 300_000, what: 'all namespaces to be ready' })
  const failoverSeconds = (performance.now() - begin) / 1000
  await sleep(afterwardsMs)
  return { failoverSeconds, afterwards: since() }
}

/** Each warning in the logs once, with its number. */
function warningsOf(replicas: readonly Replica[]): string[] {
  return replicas.flatMap(({ name, pullpass }) => {
    const lines = pullpass.output().matchAll(/"level":"(?:warn|error|fatal)".*"msg":"([^"]*)"/g)
    const by = Object.groupBy(lines, ([, message = '']) => message)
    return Object.entries(by).map(([message, all = []]) => `${name}: ${all.length} x ${message}`)
  })
}

async function peakBytesOf({ pullpass }: Replica): Promise<number> {
  const status = await readFile(`/proc/${pullpass.process().pid}/status`, 'utf8')
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) * 1024
}

const ticksPerSecond = 100

async function cpuSecondsOf({ pullpass }: Replica): Promise<number> {
  const stat = await readFile(`/proc/${pullpass.process().pid}/stat`, 'utf8')
  const [user, system] = stat.slice(stat.lastIndexOf(')')).split(' ').slice(12, 14).map(Number)
  return ((user ?? 0) + (system ?? 0)) / ticksPerSecond
}

interface SecretList {
  items: V1Secret[]
  metadata: { continue?: string }
}

/** The number of namespaces whose Secret holds a live token that was minted for it. */
async function countServed({ cluster, environment }: Site): Promise<number> {
  const byText = new Map(environment.ledger.liveTokens().map(token => [token.text, token]))
  const path = '/api/v1/secrets?fieldSelector=metadata.name%3Dpullpass-registry&limit=500'
  let served = 0
  let next = ''
  do {
    const { body } = await cluster.ask<SecretList>('GET', `${path}&continue=${next}`)
    for (const { metadata, data } of body.items) {
      const config = Buffer.from(data?.['.dockerconfigjson'] ?? '', 'base64').toString()
      const [entry] = Object.values(JSON.parse(config).auths) as { password: string }[]
      const description = byText.get(entry?.password ?? '')?.description.split('/')
      if (description?.[2] === metadata?.namespace) served++
    }
    next = encodeURIComponent(body.metadata.continue ?? '')
  } while (next !== '')
  return served
}

import type { V1Secret } from '@kubernetes/client-node'
import {
  copyOf,
  createModelCluster,
  heldIn,
  isOptedIn,
  noApiFaults,
  readSecret,
  type Snapshot,
} from './cluster.ts'
import { createModelEnvironment, type Habits, noFaults, type Row } from './environment.ts'
import {
  continueProcess,
  createSite,
  endProcess,
  otherOrganization,
  restartAll,
  type Site,
  type SiteSettings,
  startReplica,
  stopProcess,
  type World,
} from './site.ts'
import { createRandom, installVirtualTime } from './virtual-time.ts'

/*
 * A random walk of events against a model of an environment and of clusters, with the real controller
 * in between. After every few events everything is left alone until it has settled:
 *
 * - every opted-in namespace that can be served has a Secret with a live token of its own;
 * - at most one live token per namespace, and none without a namespace.
 *
 * And at every moment: no token in use is revoked, and no Secret in use is deleted.
 *
 *     node test/controller/random-walk.ts --events 1000000 --seed 1
 *
 * A violation names the seed of its part of the walk: --seed N --events 200 --level debug repeats it.
 */

const second = 1000
const minute = 60 * second
const names = Array.from({ length: 14 }, (_, index) => `ns-${index}`)
const secretNames = ['pullpass-registry', 'other-name']
/** A live read and the revocation after it may be so far apart, with a leader stopped in between. */
const decisionMs = 25 * second
const longestLagMs = 3 * minute
/** A leader lists once a minute, and reads the list in less than another. */
const noticeMs = 3 * minute
/** A whole part begins with an empty cluster, and has habits of its own. */
const eventsPerPart = 200
const eventsBetweenChecks = 12
/** The mark of a clone that ended expires, then two lists, three mints in ten minutes, back-offs. */
const settlesWithinMs = 100 * minute
/** Rows that ended are listed for so long. */
const keptMs = 40 * minute

interface Walk extends World {
  production: Site
  /** Clusters beside production: same identity, until they are renamed. */
  clones: Site[]
  backups: V1Secret[]
  /** From then on each side must have seen the mark of the other. */
  noticedAt: number
  snapshot: Snapshot | undefined
  restoredAt: number
  /** Where something happened last: events that meet are the ones that matter. */
  recent: string[]
  /** In which production has minted, as far as its Lease can know. */
  organizations: ReadonlySet<string>
  log: string[]
  violation: string | undefined
}

class Violation extends Error {}

/** One part of the walk. Resolves to the number of events; throws a Violation. */
async function walkPart(seed: number, events: number, level: string): Promise<number> {
  const random = createRandom(seed)
  const time = installVirtualTime(Date.parse('2026-01-01T00:00:00Z'), createRandom(seed + 1))
  try {
    const walk = createWalk({ time, random, level })
    for (let count = 1; count <= events; count++) {
      happen(walk)
      expectNotice(walk)
      const pause = random() < 0.5 ? 5 * second : random() < 0.8 ? minute : 6 * minute
      await time.advance(random() * pause)
      verify(walk, seed)
      if (count % eventsBetweenChecks === 0) await settle(walk, seed)
    }
    return events
  } finally {
    time.uninstall()
  }
}

function createWalk({ time, random, level }: Pick<World, 'time' | 'random' | 'level'>): Walk {
  const listTexts = random() < 0.8
  const habits: Habits = {
    jwt: !listTexts || random() < 0.8,
    listTexts,
    textById: !listTexts || random() < 0.6,
    sameForSameDescription: random() < 0.3,
  }
  const environment = createModelEnvironment(time, random, habits)
  const settings: SiteSettings = {
    clusterName: 'main',
    secretName: 'pullpass-registry',
    organization: 'acme',
    rotateAfterMs: random() < 0.4 ? 25 * minute : undefined,
  }
  const cluster = createModelCluster('main', time, random)
  const world: World = { time, random, environment, level, onRemove: () => {} }
  const walk: Walk = {
    ...world,
    production: createSite(cluster, settings, world),
    clones: [],
    backups: [],
    noticedAt: 0,
    snapshot: undefined,
    restoredAt: Number.NEGATIVE_INFINITY,
    recent: [],
    organizations: new Set([settings.organization, otherOrganization]),
    log: [`habits: ${JSON.stringify(habits)}, rotateAfterMs: ${settings.rotateAfterMs}`],
    violation: undefined,
  }
  environment.onRevoke = (row, by) => checkRevocation(walk, row, by)
  world.onRemove = (site, namespace) => checkRemoval(walk, site, namespace)
  return walk
}

function sitesOf({ production, clones }: Walk): Site[] {
  return [production, ...clones]
}

/** No token in use is revoked: held by an opted-in namespace for longer than a decision takes. */
function checkRevocation(walk: Walk, row: Row, by: string): void {
  for (const site of sitesOf(walk)) {
    const { cluster } = site
    const isOther = cluster.name !== by
    if (isOther && !isNoticed(walk, site, row)) continue
    for (const name of cluster.state.namespaces.keys()) {
      // What a clone may not change, it cannot replace by a token of its own.
      if (!isOther || canBeServed(site, name)) checkUse(walk, site, name, row)
    }
  }
}

/**
 * The side that revokes knows of this one by a mark under the name in the description: either acts
 * under it, or has left a mark when it was renamed. Otherwise its Secret is a copy of the token of
 * another cluster, which is dead for it: nothing protects that one until it is replaced.
 */
function isNoticed(walk: Walk, site: Site, { description }: Row): boolean {
  if (walk.time.now() < walk.noticedAt) return false
  const [, name = ''] = description.split('/')
  if (site.settings.clusterName === name) return true
  const others = sitesOf(walk).filter(each => each !== site)
  const isLeft = (nonce: string) =>
    noncesOf(site).has(nonce) && others.every(other => !noncesOf(other).has(nonce))
  return walk.environment.marksOf(name).some(isLeft)
}

function noncesOf({ cluster }: Site): ReadonlySet<string> {
  return new Set(Object.keys(JSON.parse(cluster.state.notes.get('marks') ?? '{}')))
}

function checkUse(walk: Walk, site: Site, name: string, { id, text, description }: Row): void {
  const { cluster, settings } = site
  const usedMs = walk.time.now() - cluster.heldSince(name, settings.secretName)
  // Only its own namespace is read before: that another uses it, the watch says.
  const isOwn = description.split('/')[2] === name
  const unseenMs = isOwn ? decisionMs : decisionMs + longestLagMs
  if (tokenOf(site, name) !== text || usedMs < unseenMs) return
  const about = `${cluster.name}/${name} has used for ${Math.round(usedMs / second)} s`
  report(walk, `token ${id} (${description}) was revoked, which ${about}`)
}

function checkRemoval(walk: Walk, { cluster, settings }: Site, namespace: string): void {
  const since = cluster.heldSince(namespace, settings.secretName)
  const isUsed = isOptedIn(cluster.state, namespace) && walk.time.now() - since >= decisionMs
  if (isUsed)
    report(walk, `the Secret of ${cluster.name}/${namespace} was deleted, which is in use`)
}

function report(walk: Walk, violation: string): void {
  walk.violation ??= violation
  note(walk, `VIOLATION ${violation}`)
}

function note(walk: Walk, text: string): void {
  const line = `${new Date(walk.time.now()).toISOString().slice(5, 23)} ${text}`
  walk.log.push(line)
  if (walk.level !== 'silent') console.log(line)
}

function verify(walk: Walk, seed: number): void {
  if (walk.violation === undefined) return
  throw new Violation(`seed ${seed}: ${walk.violation}\n${walk.log.slice(-60).join('\n')}`)
}

function tokenOf({ cluster, settings }: Site, name: string): string | undefined {
  return heldIn(cluster.state, name, settings.secretName)
}

function secretOf(
  { cluster, settings }: Pick<Site, 'cluster' | 'settings'>,
  name: string,
): V1Secret | undefined {
  return cluster.state.secrets.get(`${name}/${settings.secretName}`)
}

/** Faults end, everybody runs; then all has to come right. */
async function settle(walk: Walk, seed: number): Promise<void> {
  const { time, random, environment } = walk
  environment.faults = noFaults
  const [clone] = walk.clones
  if (clone !== undefined && random() < 0.5) endClone(walk, clone)
  for (const site of sitesOf(walk)) {
    site.cluster.faults = noApiFaults
    for (const process of site.replicas) continueProcess(site, process, walk)
  }
  note(walk, 'everything is left alone')
  const end = time.now() + settlesWithinMs
  let wrong: string[] = []
  for (;;) {
    await time.advance(30 * second)
    verify(walk, seed)
    wrong = whatIsWrong(walk)
    if (wrong.length === 0) break
    if (time.now() > end) report(walk, `not settled: ${wrong.join('; ')}`)
  }
  environment.compact(row => time.now() - row.mintedAt < keptMs)
}

function whatIsWrong(walk: Walk): string[] {
  return [
    ...sitesOf(walk).flatMap(site => notServed(walk, site)),
    ...sitesOf(walk).flatMap(site => (isAlone(walk, site) ? tooManyTokens(walk, site) : [])),
  ]
}

/** Nobody else has its identity. */
function isAlone(walk: Walk, site: Site): boolean {
  return sitesOf(walk).every(
    other => other === site || other.settings.clusterName !== site.settings.clusterName,
  )
}

function canBeServed(site: Site, name: string): boolean {
  const secret = secretOf(site, name)
  if (!isOptedIn(site.cluster.state, name)) return false
  if (secret === undefined) return true
  return readSecret(secret).ours && !secret.immutable
}

function organizationOf({ cluster, settings }: Site, name: string): string {
  const { metadata } = cluster.state.namespaces.get(name) ?? {}
  return metadata?.annotations?.['pullpass.io/organization'] ?? settings.organization
}

function notServed(walk: Walk, site: Site): string[] {
  return [...site.cluster.state.namespaces.keys()]
    .filter(name => canBeServed(site, name))
    .flatMap(name => {
      const problem = tokenProblem(walk, site, name)
      return problem === undefined ? [] : [`${site.cluster.name}/${name} ${problem}`]
    })
}

function tokenProblem(walk: Walk, site: Site, name: string): string | undefined {
  const { environment } = walk
  const row = environment.byText(tokenOf(site, name) ?? '')
  if (row === undefined) return 'has no token'
  const { id, description, organization } = row
  if (!environment.isLive(row)) return `holds the dead token ${id}`
  if (isUnknown(walk, site, row)) return undefined
  const isOwn = description.startsWith(`pullpass/${site.settings.clusterName}/${name}/`)
  if (!isOwn) return `holds the token of ${description}`
  return organization === organizationOf(site, name) ? undefined : `uses ${organization}`
}

/**
 * No list that is read says whose it is, and the registry accepts it: it is kept. An organization
 * in which no token of its own is left is not listed any more.
 */
function isUnknown({ production, organizations }: Walk, site: Site, row: Row): boolean {
  const { settings, cluster } = site
  const isOurs = row.description.startsWith(`pullpass/${settings.clusterName}/`)
  const found = isOurs ? organizations : onLease(cluster.state)
  const listed = [...organizationsNamed(settings), ...(site === production ? found : [])]
  return row.hidden || !listed.includes(row.organization)
}

function tooManyTokens(walk: Walk, site: Site): string[] {
  return walk.environment
    .liveOf(site.settings.clusterName)
    .filter(({ row }) => !row.hidden && walk.organizations.has(row.organization))
    .filter(({ row, namespace }) => !mayStay(walk, site, namespace, row.text))
    .map(({ row, namespace }) => {
      const at = `${site.cluster.name}/${namespace}`
      return `${at} does not need token ${row.id} in ${row.organization}`
    })
}

function mayStay(walk: Walk, site: Site, namespace: string, text: string): boolean {
  const own = tokenOf(site, namespace)
  if (own === text) return true
  if (isOptedIn(site.cluster.state, namespace) && !canBeServed(site, namespace)) return true
  const row = walk.environment.byText(own ?? '')
  // A token that no list shows may be anything: nothing beside it is revoked.
  if (row !== undefined && isUnknown(walk, site, row)) return true
  return names.some(name => isCopy(site, name, text))
}

/** A Secret without our label, which the pods of its namespace use all the same. */
function isCopy(site: Site, name: string, text: string): boolean {
  const secret = isOptedIn(site.cluster.state, name) ? secretOf(site, name) : undefined
  return secret !== undefined && readSecret(secret).text === text
}

type Event = (walk: Walk, site: Site, name: string) => string | undefined

/** Each with its weight. */
const events: [weight: number, event: Event][] = [
  [8, label],
  [4, unlabel],
  [4, deleteNamespace],
  [5, deleteSecret],
  [5, restoreSecret],
  [6, copySecret],
  [3, renameNamespace],
  [4, editSecret],
  [2, restoreNamespace],
  [2, revokeByHand],
  [2, chooseOrganization],
  [1, changeSettings],
  [3, stopLeader],
  [3, continueAll],
  [3, endLeader],
  [6, breakEnvironment],
  [3, repairEnvironment],
  [3, breakApi],
  [1, startClone],
  [1, renameClone],
  [1, restoreEtcd],
]
const totalWeight = events.reduce((sum, [weight]) => sum + weight, 0)

/** It takes a list and a mark, which have to be possible, and a leader on both sides. */
function expectNotice(walk: Walk): void {
  const { time, environment } = walk
  if (time.now() >= walk.noticedAt || walk.clones.length === 0) return
  const sites = sitesOf(walk)
  const hasLeaders = sites.every(({ holder }) => holder?.owner.state === 'running')
  const works = environment.faults === noFaults && sites.every(isWell)
  if (!hasLeaders || !works) walk.noticedAt = Number.POSITIVE_INFINITY
  else if (walk.noticedAt === Number.POSITIVE_INFINITY) walk.noticedAt = time.now() + noticeMs
}

function isWell({ cluster }: Site): boolean {
  return cluster.faults === noApiFaults
}

function happen(walk: Walk): void {
  const { random } = walk
  expectNotice(walk)
  for (;;) {
    let left = random() * totalWeight
    const found = events.find(([weight]) => {
      left -= weight
      return left < 0
    })
    const site = pick(walk, sitesOf(walk))
    const name = pick(walk, random() < 0.5 && walk.recent.length > 0 ? walk.recent : names)
    backUp(walk, site, name)
    const text = found?.[1](walk, site, name)
    if (text === undefined) continue
    walk.recent = [name, ...walk.recent].slice(0, 3)
    note(walk, `${site.cluster.name}: ${text}`)
    return
  }
}

function pick<T>({ random }: Pick<Walk, 'random'>, all: readonly T[]): T {
  return all[Math.floor(random() * all.length)] as T
}

function backUp(walk: Walk, site: Site, name: string): void {
  const secret = secretOf(site, name)
  if (secret !== undefined) walk.backups.push(secret)
  if (walk.backups.length > 60) walk.backups.shift()
  if (walk.random() >= 0.03) return
  walk.snapshot = walk.production.cluster.snapshot()
}

function exists({ cluster }: Site, name: string): boolean {
  const metadata = cluster.state.namespaces.get(name)?.metadata
  return metadata !== undefined && metadata.deletionTimestamp === undefined
}

function label(_walk: Walk, { cluster }: Site, name: string): string | undefined {
  if (isOptedIn(cluster.state, name)) return undefined
  if (cluster.state.namespaces.get(name)?.metadata.deletionTimestamp) return undefined
  cluster.putNamespace(name, { 'pullpass.io/inject': 'enabled' })
  return `${name} is labelled`
}

function unlabel(_walk: Walk, { cluster }: Site, name: string): string | undefined {
  if (!isOptedIn(cluster.state, name)) return undefined
  cluster.putNamespace(name, {})
  return `${name} loses its label`
}

function deleteNamespace(_walk: Walk, site: Site, name: string): string | undefined {
  if (!exists(site, name)) return undefined
  site.cluster.deleteNamespace(name)
  return `namespace ${name} is deleted`
}

function deleteSecret(_walk: Walk, site: Site, name: string): string | undefined {
  if (secretOf(site, name) === undefined) return undefined
  site.cluster.deleteSecret(name, site.settings.secretName)
  return `the Secret of ${name} is deleted`
}

/** Mostly one whose token is live: another is replaced, and that is all. */
function backupOf(walk: Walk, name: string): V1Secret | undefined {
  const { environment, random } = walk
  const found = walk.backups.filter(({ metadata }) => metadata?.namespace === name)
  const live = found.filter(secret => {
    const row = environment.byText(readSecret(secret).text ?? '')
    return row !== undefined && environment.isLive(row)
  })
  return pick(walk, live.length > 0 && random() < 0.7 ? live : found)
}

function restoreSecret(walk: Walk, site: Site, name: string): string | undefined {
  const backup = exists(site, name) ? backupOf(walk, name) : undefined
  if (backup === undefined) return undefined
  site.cluster.putSecret(name, backup)
  return `a Secret of ${name} is restored (${tokenIn(walk, backup)})`
}

function copySecret(walk: Walk, site: Site, name: string): string | undefined {
  const from = pick(walk, names)
  const secret = secretOf(site, from)
  if (secret === undefined || from === name || !exists(site, name)) return undefined
  site.cluster.putSecret(name, secret)
  return `the Secret of ${from} is copied to ${name} (${tokenIn(walk, secret)})`
}

/** Everything in it is copied to a new namespace, and the old one goes. */
function renameNamespace(walk: Walk, site: Site, from: string): string | undefined {
  const { cluster } = site
  const name = pick(walk, names)
  const secret = secretOf(site, from)
  if (secret === undefined || from === name || !isOptedIn(cluster.state, from)) return undefined
  if (cluster.state.namespaces.get(name)?.metadata.deletionTimestamp) return undefined
  const immutable = walk.random() < 0.2 || secret.immutable === true
  cluster.putNamespace(name, { 'pullpass.io/inject': 'enabled' })
  cluster.putSecret(name, { ...secret, immutable })
  if (walk.random() < 0.5) cluster.deleteNamespace(from)
  else cluster.putNamespace(from, {})
  return `${from} becomes ${name} (${tokenIn(walk, secret)}${immutable ? ', immutable' : ''})`
}

function tokenIn({ environment }: Walk, secret: V1Secret): string {
  const { text } = readSecret(secret)
  return text === undefined ? 'no token' : `token ${environment.byText(text)?.id}`
}

function editSecret(walk: Walk, site: Site, name: string): string | undefined {
  const secret = secretOf(site, name)
  if (secret === undefined || !exists(site, name)) return undefined
  const { metadata } = secret
  const other = pick(walk, walk.backups)
  const annotations = { ...metadata?.annotations }
  const time = (ms: number) => new Date(walk.time.now() + ms).toISOString()
  const edits: [string, V1Secret][] = [
    ['its data is garbage', { ...secret, data: { '.dockerconfigjson': 'e30=' } }],
    ['its token is another', { ...secret, ...(other?.data ? { data: other.data } : {}) }],
    ['its label is removed', { ...secret, metadata: { ...metadata, labels: {} } }],
    [
      'it ends now',
      withAnnotations(secret, { ...annotations, 'pullpass.io/revoke-at': time(-minute) }),
    ],
    ['it is old', withAnnotations(secret, { ...annotations, 'pullpass.io/minted-at': time(-1e9) })],
    [
      'it names a previous token',
      withAnnotations(secret, {
        ...annotations,
        'pullpass.io/previous-token-id': pick(walk, walk.environment.rows)?.id ?? 'x',
      }),
    ],
    ['its annotations are removed', withAnnotations(secret, {})],
    ['it is immutable', { ...secret, immutable: true }],
  ]
  const [what, edited] = pick(walk, edits.slice(0, walk.random() < 0.1 ? 8 : 7))
  if (secret.immutable && edited.data !== secret.data) return undefined
  site.cluster.putSecret(name, edited)
  return `the Secret of ${name}: ${what}`
}

function withAnnotations(secret: V1Secret, annotations: Record<string, string>): V1Secret {
  return { ...secret, metadata: { ...secret.metadata, annotations } }
}

function restoreNamespace(walk: Walk, site: Site, name: string): string | undefined {
  const backup = site.cluster.state.namespaces.has(name) ? undefined : backupOf(walk, name)
  if (backup === undefined) return undefined
  site.cluster.putNamespace(name, { 'pullpass.io/inject': 'enabled' })
  site.cluster.putSecret(name, backup)
  return `namespace ${name} is restored (${tokenIn(walk, backup)})`
}

function revokeByHand(walk: Walk): string | undefined {
  const live = walk.environment.rows.filter(row => walk.environment.isLive(row))
  if (live.length === 0) return undefined
  const few = walk.random() < 0.9 ? [pick(walk, live)] : live.filter(() => walk.random() < 0.7)
  for (const row of few) row.revokedAt = walk.time.now()
  return `somebody revokes ${few.map(({ id, description }) => `${id} (${description})`).join(', ')}`
}

function chooseOrganization(walk: Walk, { cluster }: Site, name: string): string | undefined {
  if (!isOptedIn(cluster.state, name)) return undefined
  const organization = walk.random() < 0.5 ? otherOrganization : undefined
  cluster.putNamespace(name, { 'pullpass.io/inject': 'enabled' }, organization)
  return `${name} asks for organization ${organization}`
}

function changeSettings(walk: Walk, site: Site): string | undefined {
  const { settings } = site
  // Nobody finds what a clone leaves in an organization that production never used.
  const isClone = site !== walk.production
  const changed = {
    ...settings,
    ...(isClone || walk.random() < 0.5
      ? { secretName: pick(walk, secretNames) }
      : { organization: pick(walk, ['acme', 'gamma']) }),
  }
  if (JSON.stringify(changed) === JSON.stringify(settings)) return undefined
  restartAll(site, changed, walk)
  if (!isClone) {
    const former = [...walk.organizations].filter(each => isUsed(walk, each))
    walk.organizations = new Set([...former, ...organizationsNamed(changed)])
  }
  return `the settings change: ${changed.secretName}, ${changed.organization}`
}

/** Production has to find it again. Where only a clone has minted, nothing leads there. */
function isUsed({ environment, production, restoredAt }: Walk, organization: string): boolean {
  const { name, state } = production.cluster
  return (
    onLease(state).includes(organization) ||
    environment.rows.some(
      row =>
        row.permanent &&
        row.by === name &&
        row.organization === organization &&
        row.mintedAt > restoredAt,
    )
  )
}

function stopLeader(walk: Walk, site: Site): string | undefined {
  if (site.holder === undefined) return undefined
  stopProcess(site, site.holder, walk)
  return 'the leader is stopped'
}

function continueAll(walk: Walk, site: Site): string | undefined {
  const stopped = site.replicas.filter(({ owner }) => owner.state === 'stopped')
  if (stopped.length === 0) return undefined
  for (const process of stopped) continueProcess(site, process, walk)
  return 'the stopped replicas continue'
}

function endLeader(walk: Walk, site: Site): string | undefined {
  if (site.holder === undefined) return undefined
  const gracefully = walk.random() < 0.4
  endProcess(site, site.holder, gracefully, walk)
  startReplica(site, walk)
  return gracefully ? 'the leader restarts' : 'the leader is killed'
}

function breakEnvironment(walk: Walk): string {
  const { random } = walk
  const kinds: [string, Partial<typeof noFaults>][] = [
    ['lists lag', { listLagMs: random() * 20 * second }],
    ['lists lack rows', { listLacks: 0.3 }],
    ['lists are empty', { listLacks: 1 }],
    ['lists fail', { listsFail: random() < 0.5 ? 1 : 0.5 }],
    ['lists never show new tokens', { hides: 0.5 }],
    ['mints fail', { mintsFail: random() < 0.5 ? 0.7 : 1 }],
    ['answers to mints are lost', { mintsLost: 0.6 }],
    ['revocations fail', { revokesFail: 0.7 }],
    ['answers to revocations are lost', { revokesLost: 0.7 }],
    ['the registry does not answer', { registryFails: 0.8 }],
  ]
  const [what, faults] = pick(walk, kinds)
  walk.environment.faults = { ...walk.environment.faults, ...faults }
  return what
}

function repairEnvironment({ environment }: Walk): string | undefined {
  if (environment.faults === noFaults) return undefined
  environment.faults = noFaults
  return 'the environment works'
}

function breakApi(walk: Walk, { cluster }: Site): string {
  if (cluster.faults !== noApiFaults) {
    cluster.faults = noApiFaults
    return 'the API server works'
  }
  const { random } = walk
  cluster.faults = {
    fails: random() < 0.5 ? 0.3 : 0,
    lost: random() < 0.5 ? 0.3 : 0,
    watchLagMs: random() < 0.7 ? random() * longestLagMs : 0,
  }
  return `the API server has faults: ${JSON.stringify(cluster.faults)}`
}

function startClone(walk: Walk): string | undefined {
  if (walk.clones.length > 0) return undefined
  const state = walk.random() < 0.5 ? walk.snapshot : walk.production.cluster.snapshot()
  if (state === undefined) return undefined
  const cluster = createModelCluster('clone', walk.time, walk.random, copyOf(state))
  walk.noticedAt = walk.time.now() + noticeMs
  walk.clones.push(createSite(cluster, walk.production.settings, walk))
  return 'a clone starts'
}

let renamed = 0

function renameClone(walk: Walk): string | undefined {
  const [clone] = walk.clones
  if (clone === undefined || clone.settings.clusterName !== 'main') return undefined
  renamed += 1
  restartAll(clone, { ...clone.settings, clusterName: `clone-${renamed}` }, walk)
  return 'the clone gets a name of its own'
}

function endClone(walk: Walk, clone: Site): void {
  for (const process of [...clone.replicas]) endProcess(clone, process, false, walk)
  walk.clones = walk.clones.filter(each => each !== clone)
  note(walk, 'the clone ends')
}

function onLease({ notes }: Snapshot): string[] {
  return JSON.parse(notes.get('organizations') ?? '[]')
}

function organizationsNamed({ organization }: SiteSettings): string[] {
  return [organization, otherOrganization]
}

function restoreEtcd(walk: Walk, site: Site): string | undefined {
  if (walk.snapshot === undefined || site !== walk.production) return undefined
  // What the Lease of that time does not name is not found again, unless it is in use now.
  walk.organizations = new Set([...onLease(walk.snapshot), ...organizationsNamed(site.settings)])
  walk.restoredAt = walk.time.now()
  site.cluster.restore(walk.snapshot)
  restartAll(site, site.settings, walk)
  return 'etcd is restored in place'
}

/** The whole walk, or as far as it comes `until` then. Throws at the first violation. */
export async function randomWalk(options: {
  seed: number
  events: number
  until?: () => boolean
  level?: string
  progress?: (events: number) => void
}): Promise<number> {
  const { seed, events, level = 'silent', until = () => false, progress } = options
  let done = 0
  for (let part = 0; done < events && !until(); part++) {
    done += await walkPart(seed + part, Math.min(eventsPerPart, events - done), level)
    progress?.(done)
  }
  return done
}

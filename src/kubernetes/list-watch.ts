import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { Registry } from 'prom-client'
import { inTime } from '../time-limit.ts'
import type { KubernetesClient } from './client.ts'
import { asKubernetesError, KubernetesError } from './errors.ts'
import {
  createPageSize,
  guarded,
  type ListWatchHandler,
  listAll,
  type PageSize,
} from './list-pages.ts'
import { createSkipLog, type ObjectHead } from './size-limits.ts'
import { createWatchMeters, type WatchMeters } from './watch-metrics.ts'
import { type Ending, isSteady, paceAfter } from './watch-pace.ts'
import { type Change, type Watched, type WatchedObject, watchFrom } from './watch-stream.ts'

interface ListWatchDependencies<T> {
  client: KubernetesClient
  handler: ListWatchHandler<T>
  logger: Logger
  metrics?: Registry
}

interface ListWatchSettings {
  /** For logs and metrics. */
  name: string
  /** What is listed and watched: `/api/v1/secrets`, with a label or field selector. */
  path: string
  query: Record<string, string>
  /** How long one watch lives. Default: 50 to 70 s. */
  watchSeconds?: number
  /** A new list follows after this time. Default: 20 to 40 minutes. */
  relistSeconds?: number
}

export interface ListWatch {
  start(): void
  /** Whether the handler has got the first list. */
  synced(): boolean
  /** Resolves when synced; rejects only with the reason of `signal`. */
  whenSynced(signal?: AbortSignal): Promise<void>
  /** The failure of the last request; undefined: it succeeded. */
  problem(): string | undefined
  stop(): Promise<void>
}

/**
 * Lists, then watches again and again until stopped: no failure ends it (watch-pace.ts has the
 * table). Each list replaces the whole set, so a missed deletion is corrected. A list that is older
 * than the last change means that the API server went back in time (etcd was restored): all that was
 * known is dropped. Its versions may also have passed the last change by the time of the next
 * request, and nothing shows that: the regular lists correct it. An object that is too large to read
 * counts as absent (size-limits.ts). Objects are the API's JSON: timestamps are strings.
 */
export function createListWatch<T extends WatchedObject>(
  dependencies: ListWatchDependencies<T>,
  settings: ListWatchSettings,
): ListWatch {
  const state = createState(dependencies, settings)
  let loop: Promise<void> | undefined
  return {
    start() {
      loop ??= run(state)
    },
    synced: () => state.synced,
    whenSynced: state.firstList.whenThere,
    problem: () => state.problem,
    async stop() {
      state.stopping.abort()
      await loop
    },
  }
}

function createState<T extends WatchedObject>(
  { client, handler, logger: parent, metrics = new Registry() }: ListWatchDependencies<T>,
  { name, path, query, watchSeconds, relistSeconds }: ListWatchSettings,
): State<T> {
  const logger = parent.child({ watch: name })
  const meters = createWatchMeters(metrics, name)
  return {
    client,
    path,
    query,
    watchSeconds,
    relistSeconds,
    handler: guarded(handler, { logger, meters }),
    logger,
    meters,
    stopping: new AbortController(),
    firstList: createFirstList(),
    pageSize: createPageSize(query),
    logSkipped: createSkipLog(logger),
    version: undefined,
    newest: 0n,
    silentWatches: 0,
    hasFailed: false,
    relistAt: Number.POSITIVE_INFINITY,
    synced: false,
    failures: 0,
    problem: undefined,
  }
}

interface State<T> extends Watched {
  readonly handler: ListWatchHandler<T>
  readonly logger: Logger
  readonly watchSeconds: number | undefined
  readonly relistSeconds: number | undefined
  readonly meters: WatchMeters
  readonly stopping: AbortController
  readonly firstList: FirstList
  readonly pageSize: PageSize
  readonly logSkipped: (head: ObjectHead) => void
  /** Absent: list first. */
  version: string | undefined
  /** The newest version that the API server has named so far. */
  newest: bigint
  silentWatches: number
  /** Since the last event or bookmark. */
  hasFailed: boolean
  /** By performance.now(). */
  relistAt: number
  synced: boolean
  failures: number
  problem: string | undefined
}

async function run<T extends WatchedObject>(state: State<T>): Promise<void> {
  const { signal } = state.stopping
  while (!signal.aborted) {
    const ending = await listThenWatch(state)
    if (signal.aborted) return
    const waitMs = paceNext(state, ending)
    if (waitMs > 0) await sleep(waitMs, undefined, { signal }).catch(() => {})
  }
}

async function listThenWatch<T extends WatchedObject>(state: State<T>): Promise<Ending> {
  const seconds = state.watchSeconds ?? 50 + Math.round(Math.random() * 20)
  let since = Number.POSITIVE_INFINITY
  let silent = true
  const ending = (error?: KubernetesError): Ending => {
    const life = {
      livedMs: Math.max(0, performance.now() - since),
      askedMs: seconds * 1000,
    }
    if (!silent) state.silentWatches = 0
    else if (isSteady(life)) state.silentWatches += 1
    const { silentWatches, hasFailed } = state
    return { error, ...life, silentWatches, hasFailed }
  }
  try {
    const isDue = performance.now() >= state.relistAt
    const version = (isDue ? undefined : state.version) ?? (await list(state))
    since = performance.now()
    const { client, path, query } = state
    await watchFrom<T>({ client, path, query, version, seconds }, state.stopping.signal, {
      contact: () => {
        state.meters.contacted()
        state.problem = undefined
      },
      change: change => {
        silent = false
        state.hasFailed = false
        apply(state, change)
      },
    })
    return ending()
  } catch (error) {
    return ending(asKubernetesError(`watch ${state.path}`, error))
  }
}

async function list<T extends WatchedObject>(state: State<T>): Promise<string> {
  const { client, path, query, handler, meters, logger, newest } = state
  if (state.synced) meters.relisted()
  const replacement = handler.replace()
  let items = 0
  const watched = { client, path, query }
  const version = await listAll<T>(watched, state.pageSize, state.stopping.signal, {
    contact: meters.contacted,
    item: item => {
      items += 1
      replacement.add(item)
    },
    skipped: head => skip(state, head),
  })
  const anew = numberOf(version) < newest
  if (anew) logger.warn({ version, newest: `${newest}` }, 'API server went back in time')
  replacement.complete(version, anew)
  state.version = version
  state.newest = numberOf(version)
  state.silentWatches = 0
  state.hasFailed = false
  const relistSeconds = state.relistSeconds ?? 1200 + Math.random() * 1200
  state.relistAt = performance.now() + relistSeconds * 1000
  logger.info({ items }, state.synced ? 'synced again' : 'synced')
  state.synced = true
  state.firstList.arrived()
  state.problem = undefined
  return version
}

function apply<T extends WatchedObject>(state: State<T>, change: Change<T>): void {
  state.failures = 0
  const { resourceVersion } = change.object.metadata ?? {}
  if (resourceVersion !== undefined && numberOf(resourceVersion) < state.newest) {
    throw new KubernetesError(`cannot watch ${state.path}: the API server went back in time`, {
      reason: 'Expired',
    })
  }
  if (change.type === 'OVERSIZED') {
    skip(state, change.object)
    state.handler.remove(change.object as T)
  } else if (change.type === 'DELETED') state.handler.remove(change.object)
  else if (change.type !== 'BOOKMARK') state.handler.upsert(change.object)
  state.version = resourceVersion ?? state.version
  state.newest = numberOf(state.version)
}

function skip<T>(state: State<T>, head: ObjectHead): void {
  state.meters.skipped()
  state.logSkipped(head)
}

function paceNext<T>(state: State<T>, ending: Ending): number {
  const { kind, relist, waitMs, failures } = paceAfter(ending, state.failures, Math.random())
  state.failures = failures
  if (relist) state.version = undefined
  if (kind === 'closed') return waitMs
  state.hasFailed = true
  state.meters.failed(kind)
  const { message: error, status } = ending.error ?? {}
  state.problem = error
  state.logger.warn({ kind, error, status, waitMs: Math.round(waitMs), relist }, 'watch ended')
  return waitMs
}

/** Versions can be compared as whole numbers (kubernetes/enhancements KEP-5504). */
function numberOf(version: string | undefined): bigint {
  return /^\d+$/.test(version ?? '') ? BigInt(version ?? '') : 0n
}

interface FirstList {
  arrived(): void
  /** Resolves when it has arrived; rejects only with the reason of `signal`. */
  whenThere(signal?: AbortSignal): Promise<void>
}

function createFirstList(): FirstList {
  const { promise, resolve } = Promise.withResolvers<void>()
  return {
    arrived: resolve,
    whenThere: async signal => {
      await inTime(promise, { signal })
    },
  }
}

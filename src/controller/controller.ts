import { LRUCache } from 'lru-cache'
import type { Registry } from 'prom-client'
import { framesOf } from '../failure.ts'
import type { ReportProblem } from '../kubernetes/events.ts'
import type { Leadership } from '../kubernetes/leader-election.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import { type Budgets, createBudgets } from './budgets.ts'
import { classify, createFailures, type Failures } from './failures.ts'
import { createOrganizationsInUse, type Note, type OrganizationsInUse } from './organizations.ts'
import { createFindOrphaned, type FindOrphaned } from './orphans.ts'
import { createKeyedQueue, type KeyedQueue } from './queue.ts'
import { createNamespaceWork, type NamespaceWork, type WorkOptions } from './reconcile.ts'
import {
  createControllerMetrics,
  createNotManagedReport,
  createReportFailure,
  type ReportFailure,
  reportLabels,
} from './report.ts'

export interface Controller {
  /** A pod waits for this namespace's Secret: it goes first. Nothing where another replica leads. */
  want(namespace: string): void
  /** Why the namespace has no Secret, as far as this replica knows; fit for people. */
  failure(namespace: string): { message: string } | undefined
  /** Aborted as soon as a step for the namespace fails. */
  whenFailed(namespace: string): AbortSignal
  start(): void
  /** Lets running steps end, for a moment; what is cut off then, the next leader goes on from. */
  stop(): Promise<void>
  /** What keeps namespaces from their pull secret and is nobody's to mend but the administrator's. */
  problems(): string[]
}

/** How long running steps may go on after `stop()`. */
const stopMs = 3000

/** Sees to it, as long as this replica leads, that every opted-in namespace has its pull secret. */
export function createController(options: ControllerOptions): Controller {
  const { index, leadership } = options
  const loop = createLoop(options)
  const { queue, failures, work } = loop
  const reportNotManaged = createNotManagedReport(index, loop.tell)
  const forgetFormer = createForgetFormer(loop)
  /** A namespace that stays gets the Secret again, and its tokens are looked through then. */
  const isLeaving = (namespace: string) => index.namespaces.get(namespace)?.terminating !== false
  return {
    start: () => {
      for (const namespace of index.names()) reportNotManaged(namespace)
      reportLabels(options)
      index.onChange((namespace, gone) => {
        reportNotManaged(namespace)
        forgetFormer(namespace)
        reconsider(loop, namespace)
        // Who does not lead need not remember: a leader begins with a look through all tokens.
        if (gone?.ours && leadership.leading() && isLeaving(namespace)) work.collectLater(gone)
        if (shouldRun(loop, namespace)) queue.add(namespace)
      })
      leadership.onChange(leading => (leading ? begin(loop) : end(loop)))
      if (leadership.leading()) begin(loop)
    },
    stop: async () => {
      queue.clear()
      await Promise.race([queue.onIdle(), new Promise(resolve => setTimeout(resolve, stopMs))])
      end(loop)
    },
    want: namespace => {
      if (shouldRun(loop, namespace)) queue.add(namespace, true)
    },
    problems: () => missingRights(failures),
    failure: namespace => failures.get(namespace),
    whenFailed: namespace => failures.whenFailed(namespace),
  }
}

/** What was held against the namespace, and what is left of it after a change. */
function reconsider({ options, failures, budgets }: Loop, namespace: string): void {
  const { namespaces, secrets } = options.index
  if (namespaces.get(namespace) === undefined && secrets.get(namespace) === undefined) {
    failures.clear(namespace)
  } else if (failures.reconsider(namespace)) budgets.relax(namespace)
}

/** A namespace that was deleted and created again owes nothing for the one before it. */
function createForgetFormer({ options, failures, budgets }: Loop): (namespace: string) => void {
  const uids = new LRUCache<string, string>({ max: 20_000 })
  return namespace => {
    const uid = options.index.namespaces.get(namespace)?.uid
    if (uid === undefined) return
    const before = uids.get(namespace)
    uids.set(namespace, uid)
    if (before === undefined || before === uid) return
    budgets.reset(namespace)
    failures.clear(namespace)
  }
}

/** A right that is missing in many namespaces is one problem. */
function missingRights(failures: Failures): string[] {
  const notes = failures.all().flatMap(({ platform }) => platform ?? [])
  return [...new Set(notes)].toSorted()
}

type Made = 'stepDone' | 'assertLeading' | 'budgets' | 'organizationsInUse'

interface ControllerOptions extends Omit<WorkOptions, Made> {
  /** Where the leader keeps the organizations in use for its successor. */
  organizationsAnnotation: Note
  leadership: Leadership
  concurrency: number
  metrics: Registry
  /** Tells whoever owns a namespace why it has no pull secret. */
  reportProblem: ReportProblem
  /** Every namespace is looked at this often, whatever the watches said. */
  resyncMs?: number
  /** The environment's tokens are looked through this often for ones that no Secret names. */
  sweepMs?: number
  /** And so long after a term began: what a stalled predecessor had under way may land late. */
  sweepAgainMs?: number
}

class NotLeadingError extends Error {}

interface Loop {
  options: ControllerOptions
  queue: KeyedQueue
  failures: Failures
  work: NamespaceWork
  count(step: string, outcome: string): void
  tell: ReportFailure
  /** Ends with this replica's leadership. */
  term: AbortController
  timers: NodeJS.Timeout[]
  findOrphaned: FindOrphaned
  organizationsInUse: OrganizationsInUse
  budgets: Budgets
}

/** The state of the controller, before it is started. */
function createLoop(options: ControllerOptions): Loop {
  const queue = createKeyedQueue(options.concurrency, namespace => runOne(loop, namespace))
  const failures = createFailures({
    retry: namespace => queue.add(namespace),
    digest: namespace => digestOf(options.index, namespace),
  })
  const budgets = createBudgets(options.now)
  const organizationsInUse = createOrganizationsInUse(
    options.organizations,
    options.organizationsAnnotation,
  )
  const { count } = createControllerMetrics(options.index, failures, options.metrics)
  const work = createNamespaceWork({
    ...options,
    budgets,
    organizationsInUse,
    stepDone: step => count(step, 'done'),
    assertLeading: () => {
      if (!leads(loop)) throw new NotLeadingError()
    },
  })
  const loop: Loop = {
    options,
    queue,
    failures,
    work,
    count,
    tell: createReportFailure(options),
    term: new AbortController(),
    timers: [],
    findOrphaned: createFindOrphaned({ ...options, organizationsInUse }),
    organizationsInUse,
    budgets,
  }
  return loop
}

/** Of all that decides what a namespace needs: not of annotations and versions of its Secret. */
function digestOf({ namespaces, secrets }: PullSecretIndex, name: string): string {
  const namespace = namespaces.get(name)
  return JSON.stringify([namespace, secrets.get(name)?.digest, secrets.get(name)?.terminating])
}

function leads({ options, term }: Loop): boolean {
  return options.leadership.leading() && !term.signal.aborted
}

/** A refused namespace has its next try arranged already: no event makes it come sooner. */
function shouldRun(loop: Loop, namespace: string): boolean {
  return leads(loop) && !loop.failures.get(namespace) && loop.work.isNeeded(namespace)
}

async function runOne(loop: Loop, namespace: string): Promise<void> {
  const { work, failures } = loop
  const { signal } = loop.term
  try {
    const acted = await work.run(namespace, signal)
    failures.clear(namespace)
    if (acted) failures.environmentAnswers()
  } catch (error) {
    if (!signal.aborted && !(error instanceof NotLeadingError)) refuse(loop, namespace, error)
  }
}

function refuse({ failures, count, tell, options }: Loop, namespace: string, error: unknown): void {
  const policy = classify(error)
  const { code, message } = policy
  count('any', code)
  const isNew = failures.refuse(namespace, policy)
  if (code === 'internal_error') options.logger.error({ namespace, at: framesOf(error) }, message)
  else if (isNew) tell(namespace, policy)
}

function lookAtAll(loop: Loop): void {
  for (const namespace of [...loop.options.index.names(), ...loop.work.pending()]) {
    if (shouldRun(loop, namespace)) loop.queue.add(namespace)
  }
}

/** Namespaces with tokens that no Secret names are collected, one by one. */
async function sweep(loop: Loop): Promise<void> {
  if (!leads(loop)) return
  for (const tokens of await loop.findOrphaned(loop.term.signal)) {
    loop.work.collectLater(tokens)
    loop.queue.add(tokens.namespace)
  }
}

/** A term of leadership begins with a full look at everything. */
function begin(loop: Loop): void {
  const { logger, resyncMs = 15_000, sweepMs = 60_000, sweepAgainMs = 15_000 } = loop.options
  end(loop)
  loop.organizationsInUse.reload()
  loop.term = new AbortController()
  const { signal } = loop.term
  const sweepSafely = () => {
    sweep(loop).catch(error => {
      if (!signal.aborted)
        logger.error({ at: framesOf(error) }, 'looking for orphaned tokens failed')
    })
  }
  loop.timers = [
    setInterval(() => lookAtAll(loop), resyncMs).unref(),
    setInterval(sweepSafely, sweepMs).unref(),
    setTimeout(sweepSafely, sweepAgainMs).unref(),
  ]
  lookAtAll(loop)
  sweepSafely()
}

/** Cuts off what runs, forgets what waits. */
function end(loop: Loop): void {
  loop.term.abort()
  for (const timer of loop.timers) clearInterval(timer)
  loop.queue.clear()
  loop.failures.clearAll()
}

import type { Registry } from 'prom-client'
import { framesOf } from '../bug.ts'
import type { Leadership } from '../kubernetes/leader.ts'
import type { TellProblem } from '../kubernetes/problem-events.ts'
import type { PullSecretIndex } from '../pull-secret/pull-secret-index.ts'
import { type Budgets, createBudgets } from './budgets.ts'
import { createFindStray, type FindStray } from './find-stray.ts'
import { createKeeperMetrics } from './keeper-metrics.ts'
import { createKeyedQueue, type KeyedQueue } from './keyed-queue.ts'
import {
  createOrganizationsInUse,
  type Note,
  type OrganizationsInUse,
} from './organizations-in-use.ts'
import { judge } from './refusal.ts'
import { createRefusals, type Refusals } from './refusals.ts'
import { createTellRefusal, type TellRefusal } from './tell-refusal.ts'
import { createNamespaceWork, type NamespaceWork, type WorkOptions } from './work-on-namespace.ts'

type Made = 'stepDone' | 'assertLeading' | 'budgets' | 'organizationsInUse'

export interface KeeperOptions extends Omit<WorkOptions, Made> {
  /** Where the leader keeps the organizations in use for its successor. */
  organizationsNote: Note
  leadership: Leadership
  concurrency: number
  metrics: Registry
  /** Tells whoever owns a namespace why it has no pull secret. */
  tellProblem: TellProblem
  /** Every namespace is looked at this often, whatever the watches said. */
  resyncMs?: number
  /** The environment's tokens are looked through this often for ones that no Secret names. */
  sweepMs?: number
  /** And so long after a term began: what a stalled predecessor had under way may land late. */
  sweepAgainMs?: number
}

class NotLeadingError extends Error {}

export interface Loop {
  options: KeeperOptions
  queue: KeyedQueue
  refusals: Refusals
  work: NamespaceWork
  count(step: string, outcome: string): void
  tell: TellRefusal
  /** Ends with this replica's leadership. */
  term: AbortController
  timers: NodeJS.Timeout[]
  findStray: FindStray
  organizationsInUse: OrganizationsInUse
  budgets: Budgets
}

/** The state of the keeper, before it is started. */
export function createLoop(options: KeeperOptions): Loop {
  const queue = createKeyedQueue(options.concurrency, namespace => runOne(loop, namespace))
  const refusals = createRefusals({
    retry: namespace => queue.add(namespace),
    digest: namespace => digestOf(options.index, namespace),
  })
  const budgets = createBudgets(options.now)
  const organizationsInUse = createOrganizationsInUse(
    options.organizations,
    options.organizationsNote,
  )
  const { count } = createKeeperMetrics(options.index, refusals, options.metrics)
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
    refusals,
    work,
    count,
    tell: createTellRefusal(options),
    term: new AbortController(),
    timers: [],
    findStray: createFindStray({ ...options, organizationsInUse }),
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
export function shouldRun(loop: Loop, namespace: string): boolean {
  return leads(loop) && !loop.refusals.get(namespace) && loop.work.isNeeded(namespace)
}

async function runOne(loop: Loop, namespace: string): Promise<void> {
  const { work, refusals } = loop
  const { signal } = loop.term
  try {
    const acted = await work.run(namespace, signal)
    refusals.clear(namespace)
    if (acted) refusals.environmentAnswers()
  } catch (error) {
    if (!signal.aborted && !(error instanceof NotLeadingError)) refuse(loop, namespace, error)
  }
}

function refuse({ refusals, count, tell, options }: Loop, namespace: string, error: unknown): void {
  const verdict = judge(error)
  const { code, message } = verdict
  count('any', code)
  const isNew = refusals.refuse(namespace, verdict)
  if (code === 'internal_error') options.logger.error({ namespace, at: framesOf(error) }, message)
  else if (isNew) tell(namespace, verdict)
}

function lookAtAll(loop: Loop): void {
  for (const namespace of [...loop.options.index.names(), ...loop.work.untidy()]) {
    if (shouldRun(loop, namespace)) loop.queue.add(namespace)
  }
}

/** Namespaces with tokens that no Secret names are tidied, one by one. */
async function sweep(loop: Loop): Promise<void> {
  if (!leads(loop)) return
  for (const tokens of await loop.findStray(loop.term.signal)) {
    loop.work.tidyLater(tokens)
    loop.queue.add(tokens.namespace)
  }
}

/** A term of leadership begins with a full look at everything. */
export function begin(loop: Loop): void {
  const { logger, resyncMs = 15_000, sweepMs = 60_000, sweepAgainMs = 15_000 } = loop.options
  end(loop)
  loop.organizationsInUse.reload()
  loop.term = new AbortController()
  const { signal } = loop.term
  const sweepSafely = () => {
    sweep(loop).catch(error => {
      if (!signal.aborted) logger.error({ at: framesOf(error) }, 'looking for stray tokens failed')
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
export function end(loop: Loop): void {
  loop.term.abort()
  for (const timer of loop.timers) clearInterval(timer)
  loop.queue.clear()
  loop.refusals.clearAll()
}

import { LRUCache } from 'lru-cache'
import type { SecretKeeper } from '../pull-secret/secret-missing.ts'
import { begin, createLoop, end, type KeeperOptions, type Loop, shouldRun } from './keeper-loop.ts'
import type { Refusals } from './refusals.ts'
import { createForeignReport } from './report-foreign.ts'
import { reportLabels } from './report-labels.ts'

export interface Keeper extends SecretKeeper {
  start(): void
  /** Lets running steps end, for a moment; what is cut off then, the next leader goes on from. */
  stop(): Promise<void>
  /** What keeps namespaces from their pull secret and is nobody's to mend but the administrator's. */
  problems(): string[]
}

/** How long running steps may go on after `stop()`. */
const stopMs = 3000

/** Sees to it, as long as this replica leads, that every opted-in namespace has its pull secret. */
export function createKeeper(options: KeeperOptions): Keeper {
  const { index, leadership } = options
  const loop = createLoop(options)
  const { queue, refusals, work } = loop
  const reportForeign = createForeignReport(index, loop.tell)
  const forgetFormer = createForgetFormer(loop)
  /** A namespace that stays gets the Secret again, and its tokens are looked through then. */
  const isLeaving = (namespace: string) => index.namespaces.get(namespace)?.terminating !== false
  return {
    start: () => {
      for (const namespace of index.names()) reportForeign(namespace)
      reportLabels(options)
      index.onChange((namespace, gone) => {
        reportForeign(namespace)
        forgetFormer(namespace)
        reconsider(loop, namespace)
        // Who does not lead need not remember: a leader begins with a look through all tokens.
        if (gone?.ours && leadership.leading() && isLeaving(namespace)) work.tidyLater(gone)
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
    problems: () => missingRights(refusals),
    refusal: namespace => refusals.get(namespace),
    whenRefused: namespace => refusals.whenRefused(namespace),
  }
}

/** What was held against the namespace, and what is left of it after a change. */
function reconsider({ options, refusals, budgets }: Loop, namespace: string): void {
  const { namespaces, secrets } = options.index
  if (namespaces.get(namespace) === undefined && secrets.get(namespace) === undefined) {
    refusals.clear(namespace)
  } else if (refusals.reconsider(namespace)) budgets.relax(namespace)
}

/** A namespace that was deleted and created again owes nothing for the one before it. */
function createForgetFormer({ options, refusals, budgets }: Loop): (namespace: string) => void {
  const uids = new LRUCache<string, string>({ max: 20_000 })
  return namespace => {
    const uid = options.index.namespaces.get(namespace)?.uid
    if (uid === undefined) return
    const before = uids.get(namespace)
    uids.set(namespace, uid)
    if (before === undefined || before === uid) return
    budgets.reset(namespace)
    refusals.clear(namespace)
  }
}

/** A right that is missing in many namespaces is one problem. */
function missingRights(refusals: Refusals): string[] {
  const notes = refusals.all().flatMap(({ platform }) => platform ?? [])
  return [...new Set(notes)].toSorted()
}

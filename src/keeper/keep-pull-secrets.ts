import type { SecretKeeper } from '../pull-secret/secret-missing.ts'
import { begin, createLoop, end, type KeeperOptions, shouldRun } from './keeper-loop.ts'
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
  return {
    start: () => {
      for (const namespace of index.names()) reportForeign(namespace)
      reportLabels(options)
      index.onChange((namespace, gone) => {
        reportForeign(namespace)
        const isKnown = index.namespaces.get(namespace) ?? index.secrets.get(namespace)
        if (isKnown) refusals.reconsider(namespace)
        else refusals.clear(namespace)
        // Who does not lead need not remember: a leader begins with a look through all tokens.
        if (gone?.ours && leadership.leading()) work.tidyLater(gone)
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

/** The rule to grant stands last in a message: missing in many namespaces, it is told of the first. */
function missingRights(refusals: Refusals): string[] {
  const ours = refusals.all().filter(({ code }) => code === 'forbidden')
  const byRule = new Map<string | undefined, string>()
  for (const message of ours.map(({ message }) => message).toSorted()) {
    const rule = message.split('; ').at(-1)
    if (!byRule.has(rule)) byRule.set(rule, message)
  }
  return [...byRule.values()]
}

import type { Logger } from 'pino'
import type { Leadership } from '../kubernetes/leader.ts'
import type { TellProblem } from '../kubernetes/problem-events.ts'
import type { PullSecretIndex } from '../pull-secret/pull-secret-index.ts'

/**
 * Reports each namespace whose label has no effect: once, as an event in the namespace and as a log
 * line, while this replica leads. Where a namespace gets another such value, it is reported again.
 */
export function reportLabels(options: {
  index: Pick<PullSecretIndex, 'labelProblem' | 'mislabelled' | 'onChange'>
  leadership: Leadership
  tellProblem: TellProblem
  logger: Logger
}): void {
  const { index, leadership, tellProblem, logger } = options
  const reported = new Map<string, string>()
  const report = (namespace: string) => {
    const problem = index.labelProblem(namespace)
    if (problem === undefined) return void reported.delete(namespace)
    if (!leadership.leading() || reported.get(namespace) === problem) return
    reported.set(namespace, problem)
    logger.warn({ namespace }, problem)
    const regarding = { kind: 'Namespace', name: namespace, namespace }
    void tellProblem(regarding, 'InjectLabelIgnored', problem)
  }
  const reportAll = () => {
    for (const namespace of index.mislabelled()) report(namespace)
  }
  index.onChange(report)
  leadership.onChange(reportAll)
  reportAll()
}

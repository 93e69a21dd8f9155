import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import { Counter, Gauge, type Registry } from 'prom-client'
import type { ReportProblem } from '../kubernetes/events.ts'
import type { Leadership } from '../kubernetes/leader-election.ts'
import { isUsable, type PullSecretIndex } from '../pull-secret/cache.ts'
import type { PullSecretRules } from '../pull-secret/pull-secret.ts'
import { eventReason, type Failures, notManaged, type RetryPolicy } from './failures.ts'

export type ReportFailure = (
  namespace: string,
  failure: Pick<RetryPolicy, 'code' | 'message' | 'isTheirs'>,
) => void

/** So many texts of one namespace are written within ten minutes, and each of them once. */
const mostTexts = 5
const periodMs = 600_000
const mostNamespaces = 10_000

/** In the log, and where its owner can act on it, as an event in the namespace. */
export function createReportFailure(options: {
  rules: PullSecretRules
  reportProblem: ReportProblem
  logger: Logger
}): ReportFailure {
  const { rules, reportProblem, logger } = options
  const isAllowed = createLimit()
  return (namespace, { code, message, isTheirs }) => {
    if (!isAllowed(namespace, message)) return
    logger.warn({ namespace, code }, `no pull secret: ${message}`)
    if (!isTheirs) return
    const secret = { kind: 'Secret', name: rules.secretName, namespace }
    void reportProblem(secret, eventReason(code), message)
  }
}

function createLimit(): (namespace: string, text: string) => boolean {
  const written = new LRUCache<string, Map<string, number>>({ max: mostNamespaces })
  return (namespace, text) => {
    const now = performance.now()
    const texts = written.get(namespace) ?? new Map<string, number>()
    for (const [each, at] of texts) if (at < now - periodMs) texts.delete(each)
    if (texts.has(text) || texts.size >= mostTexts) return false
    written.set(namespace, texts.set(text, now))
    return true
  }
}

/**
 * Says, once for each, which opted-in namespaces hold a Secret of our name that somebody else made.
 * The returned function looks at one namespace; it is for all of them at the start, and for each change.
 */
export function createNotManagedReport(
  index: PullSecretIndex,
  tell: ReportFailure,
): (namespace: string) => void {
  const told = new Set<string>()
  return namespace => {
    const secret = index.secrets.get(namespace)
    const isNotManaged = secret?.ours === false && index.namespaces.get(namespace) !== undefined
    if (isNotManaged && !told.has(namespace)) tell(namespace, notManaged)
    if (isNotManaged) told.add(namespace)
    else told.delete(namespace)
  }
}

/**
 * Reports each namespace whose label has no effect: once, as an event in the namespace and as a log
 * line, while this replica leads. Where a namespace gets another such value, it is reported again.
 */
export function reportLabels(options: {
  index: Pick<PullSecretIndex, 'labelProblem' | 'mislabelled' | 'onChange'>
  leadership: Leadership
  reportProblem: ReportProblem
  logger: Logger
}): void {
  const { index, leadership, reportProblem, logger } = options
  const reported = new Map<string, string>()
  const report = (namespace: string) => {
    const problem = index.labelProblem(namespace)
    if (problem === undefined) return void reported.delete(namespace)
    if (!leadership.leading() || reported.get(namespace) === problem) return
    reported.set(namespace, problem)
    logger.warn({ namespace }, problem)
    const regarding = { kind: 'Namespace', name: namespace, namespace }
    void reportProblem(regarding, 'InjectLabelIgnored', problem)
  }
  const reportAll = () => {
    for (const namespace of index.mislabelled()) report(namespace)
  }
  index.onChange(report)
  leadership.onChange(reportAll)
  reportAll()
}

const states = ['ready', 'waiting', 'refused', 'not_managed'] as const

/** The controller's counters; the states of the namespaces are counted when somebody asks. */
export function createControllerMetrics(
  index: PullSecretIndex,
  failures: Failures,
  registry: Registry,
): { count(step: string, outcome: string): void } {
  const steps = new Counter({
    name: 'pullpass_controller_steps_total',
    help: 'Steps of the controller, by kind and outcome (done, or the code of a failure)',
    labelNames: ['step', 'outcome'] as const,
    registers: [registry],
  })
  new Gauge({
    name: 'pullpass_namespaces',
    help: 'Opted-in namespaces, by the state of their pull secret',
    labelNames: ['state'] as const,
    registers: [registry],
    collect() {
      const counts = new Map<string, number>(states.map(state => [state, 0]))
      for (const namespace of index.namespaces.keys()) {
        const state = stateOf(namespace, index, failures)
        counts.set(state, (counts.get(state) ?? 0) + 1)
      }
      for (const [state, count] of counts) this.set({ state }, count)
    },
  })
  countFailures(index, failures, registry)
  return { count: (step, outcome) => steps.inc({ step, outcome }) }
}

/** Of no namespace in particular: whoever owns one reads the reason in an event there. */
function countFailures(index: PullSecretIndex, failures: Failures, registry: Registry): void {
  new Gauge({
    name: 'pullpass_namespace_failures',
    help: 'Namespaces whose pull secret cannot be created or updated at the moment, by failure',
    labelNames: ['code'] as const,
    registers: [registry],
    collect() {
      this.reset()
      for (const { code } of failures.all()) this.inc({ code })
      for (const namespace of index.namespaces.keys()) {
        const isNotManaged = index.secrets.get(namespace)?.ours === false
        if (isNotManaged && failures.get(namespace) === undefined) this.inc({ code: 'not_managed' })
      }
    },
  })
}

function stateOf(
  namespace: string,
  index: PullSecretIndex,
  failures: Failures,
): (typeof states)[number] {
  const secret = index.secrets.get(namespace)
  if (secret !== undefined && !secret.ours) return 'not_managed'
  if (failures.get(namespace) !== undefined) return 'refused'
  return isUsable(secret) ? 'ready' : 'waiting'
}

import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import { Counter, Gauge, type Registry } from 'prom-client'
import type { FailureScope, FailureStore } from '../failure.ts'
import type { TokenError } from '../issuer/issuer.ts'
import { eventReason, type ReportProblem } from '../kubernetes/events.ts'
import type { Leadership } from '../kubernetes/leader-election.ts'
import { isUsable, type PullSecretIndex } from '../pull-secret/cache.ts'
import type { RetryPolicy } from './failures.ts'
import type { Failures } from './retries.ts'
import { shareFailures } from './share-failures.ts'

export interface FailureReport {
  /** A log line, and an event in the namespace if its owner can act on the failure. */
  begin(namespace: string, policy: RetryPolicy): void
  /** Repeats the events of namespaces that still fail. */
  renew(): void
}

/** So many texts of one namespace are written within ten minutes, and each of them once. */
const mostTexts = 5
const periodMs = 600_000
const mostNamespaces = 10_000

/** The log lines and events of namespaces that fail. */
export function createFailureReport(
  dependencies: {
    failures: Failures
    index: PullSecretIndex
    reportProblem: ReportProblem
    logger: Logger
  },
  settings: { secretName: string },
): FailureReport {
  const { failures, index, reportProblem, logger } = dependencies
  const isAllowed = createLimit()
  const events = new Map<string, { code: string; message: string }>()
  const write = (namespace: string, { code, message }: { code: string; message: string }) => {
    const secret = { kind: 'Secret', name: settings.secretName, namespace }
    void reportProblem(secret, eventReason(code), message)
  }
  return {
    begin: (namespace, { scope, code, message, reported }) => {
      const { subject = namespace } = failures.get(namespace) ?? {}
      if (!isAllowed(`${scope}/${subject}`, message)) return
      // A watch may not have reported it yet.
      const exists = code === 'not_managed' || index.secrets.get(subject) !== undefined
      const { about, text } = lineOf({ scope, subject, exists })
      logger.warn({ ...about, code }, `${text}: ${message}`)
      if (reported !== 'namespace') return
      events.set(namespace, { code, message })
      write(namespace, { code, message })
    },
    renew: () => {
      for (const [namespace, event] of events) {
        if (failures.get(namespace)?.code === event.code) write(namespace, event)
        else events.delete(namespace)
      }
    },
  }
}

/** "No pull secret" is said only of a namespace that has none. */
function lineOf({
  scope,
  subject,
  exists,
}: {
  scope: FailureScope
  subject: string
  exists: boolean
}) {
  if (scope === 'namespace') {
    const text = exists ? 'cannot update the pull secret' : 'no pull secret'
    return { about: { namespace: subject }, text }
  }
  const about = scope === 'organization' ? { scope, organization: subject } : { scope }
  return { about, text: 'cannot provide pull secrets' }
}

function createLimit(): (subject: string, text: string) => boolean {
  const written = new LRUCache<string, Map<string, number>>({ max: mostNamespaces })
  return (subject, text) => {
    const now = performance.now()
    const texts = written.get(subject) ?? new Map<string, number>()
    for (const [each, at] of texts) if (at < now - periodMs) texts.delete(each)
    if (texts.has(text) || texts.size >= mostTexts) return false
    written.set(subject, texts.set(text, now))
    return true
  }
}

/**
 * Reports each namespace whose label has no effect, while this replica leads: as a log line, and as an
 * event in the namespace. The result repeats the events, which end after an hour.
 */
function reportLabels(dependencies: {
  index: PullSecretIndex
  leadership: Leadership
  reportProblem: ReportProblem
  logger: Logger
}): { renew(): void } {
  const { index, leadership, reportProblem, logger } = dependencies
  const reported = new Map<string, string>()
  const write = (namespace: string, problem: string) => {
    const regarding = { kind: 'Namespace', name: namespace, namespace }
    void reportProblem(regarding, 'InjectLabelIgnored', problem)
  }
  const report = (namespace: string) => {
    const problem = index.labelProblem(namespace)
    if (problem === undefined) return void reported.delete(namespace)
    if (!leadership.leading() || reported.get(namespace) === problem) return
    reported.set(namespace, problem)
    logger.warn({ namespace }, problem)
    write(namespace, problem)
  }
  const reportAll = () => {
    for (const namespace of index.mislabelled()) report(namespace)
  }
  index.onChange(report)
  leadership.onChange(reportAll)
  reportAll()
  return {
    renew: () => {
      for (const [namespace, problem] of reported) {
        if (leadership.leading()) write(namespace, problem)
      }
    },
  }
}

/** Events end after an hour. */
const renewEventsMs = 600_000

/** What other replicas and people learn of failures. Returns how to end it. */
export function startReporting(
  dependencies: {
    index: PullSecretIndex
    leadership: Leadership
    problems: { store: FailureStore; report: ReportProblem }
    failures: Failures
    report: FailureReport
    logger: Logger
  },
  environmentProblem: () => TokenError | undefined,
): () => void {
  const { index, leadership, problems, failures, report, logger } = dependencies
  const labels = reportLabels({ index, leadership, reportProblem: problems.report, logger })
  const stopSharing = shareFailures({
    store: problems.store,
    failures,
    leadership,
    environmentProblem,
  })
  const timer = setInterval(() => {
    report.renew()
    labels.renew()
  }, renewEventsMs).unref()
  return () => {
    clearInterval(timer)
    stopSharing()
  }
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
  countFailures(failures, registry)
  return { count: (step, outcome) => steps.inc({ step, outcome }) }
}

/** Without their names: the owner of a namespace reads the reason in an event there. */
function countFailures(failures: Failures, registry: Registry): void {
  new Gauge({
    name: 'pullpass_namespace_failures',
    help: 'Namespaces whose pull secret cannot be created or updated at the moment, by failure',
    labelNames: ['code'] as const,
    registers: [registry],
    collect() {
      this.reset()
      for (const { code } of failures.all()) this.inc({ code })
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
  if (isUsable(secret)) return 'ready'
  return failures.get(namespace) === undefined ? 'waiting' : 'refused'
}

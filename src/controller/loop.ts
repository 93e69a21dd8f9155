import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { FailureStore } from '../failure.ts'
import type { TokenError } from '../issuer/issuer.ts'
import { tokenHash } from '../jwt.ts'
import type { ReportProblem } from '../kubernetes/events.ts'
import type { Leadership } from '../kubernetes/leader-election.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import type { PullSecretRules } from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'
import { createTakeStep, type Task } from './actions.ts'
import { type Budgets, createBudgets } from './budgets.ts'
import { type Credentials, createCredentials, type Obtained } from './ensure-credential.ts'
import type { Environment } from './environment.ts'
import { createLists, type Lists } from './lists.ts'
import { createOrphans, type Orphans } from './orphans.ts'
import { chooseOrganization, type OrganizationRules } from './plan.ts'
import { createKeyedQueue, type KeyedQueue } from './queue.ts'
import { createLooks, createReconcile, type Looks, type Reconcile } from './reconcile.ts'
import { createReplacements, type Replacements } from './replacement.ts'
import { createControllerMetrics, createFailureReport, type FailureReport } from './report.ts'
import { createFailures, type Failures } from './retries.ts'
import { type CredentialChecks, createCredentialChecks } from './verify.ts'

export interface ControllerDependencies {
  index: PullSecretIndex
  store: SecretStore
  leadership: Leadership
  /** Where failures are known, and how an event is written. */
  problems: { store: FailureStore; report: ReportProblem }
  environment: Environment
  now: () => Date
  logger: Logger
  metrics: Registry
}

export interface ControllerSettings {
  /** What our descriptions begin with. */
  cluster: string
  rules: PullSecretRules
  organizations: OrganizationRules
  concurrency: number
  rotateAfterMs: number | undefined
  rotateGraceMs: number
  revokeGraceMs: number
  verifyEveryMs: number
  listEveryMs: number
  /** From the first list of a term to the second. */
  listAgainMs: number
  /** Every namespace is looked at this often, whatever the watches report. */
  resyncMs: number
}

/** What changes while the controller runs. */
interface Term {
  /** Ends with this replica's leadership. */
  controller: AbortController
  timer: NodeJS.Timeout | undefined
}

/** The parts of the controller. */
export interface Loop {
  dependencies: ControllerDependencies
  settings: ControllerSettings
  queue: KeyedQueue
  budgets: Budgets
  failures: Failures
  count(step: string, outcome: string): void
  report: FailureReport
  checks: CredentialChecks
  replacements: Replacements
  lists: Lists
  looks: Looks
  orphans: Orphans
  reconcile: Reconcile
  term: Term
  /** Namespaces with a waiting pod. */
  wanted: Set<string>
  /** The organization that a namespace waits for: its list, or the first of its dead tokens. */
  waitingFor: Map<string, string>
  /** UIDs of namespaces, to notice one that was created again. */
  uids: LRUCache<string, string>
  /** Lists in a row that showed nothing of ours in the organization, but our mark. */
  emptyLists: Map<string, number>
}

/** What the parts ask of the controller. */
interface Calls {
  run: (namespace: string) => Promise<void>
  /** The pause of a namespace that failed is over. */
  retry: (namespace: string) => void
  listed: (organization: string, error: TokenError | undefined) => void
  /** Something is known now that may change what the namespace needs. */
  wake: (namespace: string) => void
}

class NotLeadingError extends Error {}

/** Builds the parts and passes them to each other; nothing is started. */
export function createLoop(
  dependencies: ControllerDependencies,
  settings: ControllerSettings,
  calls: Calls,
): Loop {
  const { index, metrics, leadership, now, logger, problems } = dependencies
  const { secretName } = settings.rules
  const term: Term = { controller: new AbortController(), timer: undefined }
  const queue = createKeyedQueue(calls.run, settings.concurrency)
  const budgets = createBudgets(now)
  const failures = createFailuresOf(dependencies, settings, calls.retry)
  const { count } = createControllerMetrics(index, failures, metrics)
  const assertLeading = () => {
    if (!leadership.leading() || term.controller.signal.aborted) throw new NotLeadingError()
  }
  const context: Context = { dependencies, settings, calls, budgets, assertLeading, count }
  return {
    ...createParts(context),
    dependencies,
    settings,
    queue,
    budgets,
    failures,
    count,
    report: createFailureReport(
      { failures, index, reportProblem: problems.report, logger },
      { secretName },
    ),
    term,
    wanted: new Set(),
    waitingFor: new Map(),
    uids: new LRUCache({ max: 20_000 }),
    emptyLists: new Map(),
  }
}

function createFailuresOf(
  { index, problems, now }: ControllerDependencies,
  { organizations }: ControllerSettings,
  retry: (namespace: string) => void,
): Failures {
  return createFailures({
    store: problems.store,
    retry,
    digest: namespace => digestOf(index, namespace),
    organizationOf: namespace => organizationOf(index, namespace, organizations),
    now,
  })
}

interface Context {
  dependencies: ControllerDependencies
  settings: ControllerSettings
  calls: Calls
  budgets: Budgets
  /** Throws unless this process leads. */
  assertLeading: () => void
  count: Loop['count']
}

function createParts(context: Context) {
  const { dependencies, settings, calls, budgets, assertLeading } = context
  const { index, environment, store, now, logger } = dependencies
  const { issuer, inventory, identity, organizationsInUse } = environment
  const { rules, listEveryMs, listAgainMs, organizations } = settings
  const { rotateAfterMs, rotateGraceMs, verifyEveryMs } = settings
  const { mayRevoke } = identity
  const { wake } = calls
  const checks = createCredentialChecks(
    { store, issuer, budgets, wake, now, logger },
    { rules, everyMs: verifyEveryMs },
  )
  const replacements = createReplacements({
    isRefused: checks.isRefused,
    isAccepted: checks.isAccepted,
  })
  const lists = createLists(
    { inventory, issuer, organizationsInUse, done: calls.listed, logger },
    { everyMs: listEveryMs, againMs: listAgainMs },
  )
  const credentials = createCredentials(
    { issuer, inventory, organizationsInUse, checks, budgets, assertLeading, wake, now },
    { cluster: settings.cluster, rotateAfterMs },
  )
  const looks = createLooks(
    { index, inventory, lists, credentials, checks, replacements, mayRevoke, now },
    { organizations, rotateAfterMs, rotateGraceMs },
  )
  const orphans = createOrphansOf(context, lists, looks)
  const takeStep = createTakeStepOf(context, { credentials, checks, replacements })
  const stepDone = (step: string) => context.count(step, 'done')
  const runs = { looks, lists, credentials, replacements, takeStep, orphans, stepDone }
  const reconcile = createReconcile(runs)
  return { checks, replacements, lists, looks, orphans, reconcile }
}

function createOrphansOf(
  { dependencies, settings, assertLeading }: Context,
  lists: Lists,
  looks: Looks,
): Orphans {
  const { index, store, environment, now, logger } = dependencies
  const { issuer, inventory, identity } = environment
  const { rules, rotateGraceMs } = settings
  const { mayRevoke } = identity
  return createOrphans(
    { index, store, issuer, inventory, mayRevoke, assertLeading, now, logger },
    { rules, rotateGraceMs },
    { organizations: lists.organizations, look: looks.from },
  )
}

function createTakeStepOf(
  { dependencies, settings, budgets, assertLeading }: Context,
  parts: { credentials: Credentials; checks: CredentialChecks; replacements: Replacements },
) {
  const { index, store, now, logger } = dependencies
  const { rules, revokeGraceMs } = settings
  const { credentials, checks, replacements } = parts
  const written = ({ namespace, organization, step }: Task, { token, mintedAt }: Obtained) => {
    const hash = tokenHash(token.text)
    credentials.written(token)
    checks.wrote(namespace, hash, mintedAt)
    if (step.do !== 'ensure' || step.because !== 'dead') return
    replacements.replaced(organization, namespace, hash)
    checks.ask(namespace)
  }
  return createTakeStep(
    { index, store, credentials, written, budgets, assertLeading, now, logger },
    { rules, revokeGraceMs },
  )
}

/** Undefined: none that the settings allow. */
function organizationOf(
  { namespaces }: PullSecretIndex,
  name: string,
  rules: OrganizationRules,
): string | undefined {
  const choice = chooseOrganization(name, namespaces.get(name)?.organization, rules)
  return 'refused' in choice ? undefined : choice.organization
}

/** Of all that decides what a namespace needs: not of annotations and versions of its Secret. */
function digestOf({ namespaces, secrets }: PullSecretIndex, name: string): string {
  const namespace = namespaces.get(name)
  return JSON.stringify([namespace, secrets.get(name)?.digest, secrets.get(name)?.terminating])
}

import { type Failure, framesOf } from '../failure.ts'
import { TokenError } from '../issuer/issuer.ts'
import { inTime } from '../time-limit.ts'
import { forgetAlone, shareAlone } from './alone.ts'
import { classify } from './failures.ts'
import {
  type ControllerDependencies,
  type ControllerSettings,
  createLoop,
  type Loop,
} from './loop.ts'
import type { Priority } from './queue.ts'
import { type Found, WaitForMint } from './reconcile.ts'
import { startReporting } from './report.ts'

export interface Controller {
  /** A pod waits for this namespace's Secret: it goes first. Nothing where another replica leads. */
  want(namespace: string): void
  /** Why the namespace has no Secret, as far as this replica knows; fit for people. */
  failure(namespace: string): Failure | undefined
  start(): void
  /** Gives running steps a moment to end. The next leader continues what was cut off. */
  stop(): Promise<void>
}

/** How long running steps may go on after `stop()`. */
const stopMs = 3000

/** Makes sure, while this replica leads, that every opted-in namespace has its pull secret. */
export function createController(
  dependencies: ControllerDependencies,
  settings: ControllerSettings,
): Controller {
  const loop = createLoop(dependencies, settings, {
    run: namespace => runOne(loop, namespace),
    retry: namespace => loop.queue.add(namespace, priorityOf(loop, namespace)),
    listed: (organization, error) => listed(loop, organization, error),
    wake: namespace => wake(loop, namespace),
  })
  const { queue, failures } = loop
  let stopReporting = () => {}
  return {
    start: () => {
      const { index, leadership, problems, environment, logger } = dependencies
      const environmentProblem = environment.issuer.problem
      stopReporting = startReporting(
        { index, leadership, problems, failures, report: loop.report, logger },
        environmentProblem,
      )
      start(loop)
    },
    stop: async () => {
      queue.clear()
      await inTime(queue.onIdle(), { ms: stopMs }).catch(() => {})
      end(loop)
      stopReporting()
    },
    want: namespace => {
      if (!leads(loop)) return
      loop.wanted.add(namespace)
      lookAt(loop, namespace)
    },
    failure: namespace => failures.reason(namespace),
  }
}

function start(loop: Loop): void {
  const { index, leadership, environment, logger } = loop.dependencies
  environment.inventory.onList(organization => {
    completed(loop, organization).catch(error => {
      logger.warn({ organization, at: framesOf(error) }, 'cannot use a list')
    })
  })
  environment.issuer.onCredentialChange(loop.failures.credentialsChanged)
  index.onChange(namespace => changed(loop, namespace))
  // The Lease may carry what a former leader wrote.
  forgetAlone(leadership)
  leadership.onChange(leading => (leading ? begin(loop) : end(loop)))
  if (leadership.leading()) begin(loop)
}

function changed(loop: Loop, namespace: string): void {
  const { failures, budgets, dependencies } = loop
  const { namespaces, secrets } = dependencies.index
  forgetFormer(loop, namespace)
  if (namespaces.get(namespace) === undefined && secrets.get(namespace) === undefined) {
    failures.clear(namespace)
  } else if (failures.reconsider(namespace)) budgets.relax(namespace)
  if (leads(loop)) lookAt(loop, namespace)
}

/** A namespace that was created again does not inherit failures and budgets. */
function forgetFormer({ dependencies, budgets, failures, uids }: Loop, namespace: string): void {
  const uid = dependencies.index.namespaces.get(namespace)?.uid
  if (uid === undefined) return
  const before = uids.get(namespace)
  uids.set(namespace, uid)
  if (before === undefined || before === uid) return
  budgets.reset(namespace)
  failures.clear(namespace)
}

function leads({ dependencies, term }: Loop): boolean {
  return dependencies.leadership.leading() && !term.controller.signal.aborted
}

/**
 * So many lists in a row show nothing of ours before an organization is forgotten: a list may lack
 * rows, and what is left in an organization that is forgotten is never revoked.
 */
const listsToForget = 10

/** Reasons that are failures or may become one: `reconcile` reports them. */
const reportedReasons: ReadonlySet<string> = new Set([
  'immutable',
  'not_managed',
  'no_list',
  'another_goes_first',
])

/** A namespace that failed has its next try arranged already: no event makes it come sooner. */
function lookAt(loop: Loop, namespace: string): void {
  const { looks, orphans, checks, lists, failures, queue, wanted } = loop
  const found = looks.at(namespace)
  const { secret, state, row, organization } = found
  if (state === undefined || isIdle(found, 'ready')) wanted.delete(namespace)
  const isInUse = isIdle(found, 'ready') || isIdle(found, 'another_goes_first')
  const isUnlisted = row === undefined && lists.listed(organization)
  if (isInUse && secret !== undefined) checks.look(secret, isUnlisted)
  if (failures.get(namespace) !== undefined) return
  if (isWrong(found) || orphans.pending(namespace)) {
    queue.add(namespace, priorityOf(loop, namespace))
  }
}

function isIdle({ step }: Found, because: string): boolean {
  return step.do === 'nothing' && step.because === because
}

/** A step is missing, or something has to be reported. */
function isWrong({ step, refused }: Found): boolean {
  return refused !== undefined || step.do !== 'nothing' || reportedReasons.has(step.because)
}

function priorityOf({ wanted, dependencies }: Loop, namespace: string): Priority {
  if (wanted.has(namespace)) return 'pod'
  const { namespaces, secrets } = dependencies.index
  const isFirst = namespaces.get(namespace) !== undefined && secrets.get(namespace) === undefined
  return isFirst ? 'first_mint' : 'repair'
}

function lookAtAll(loop: Loop): void {
  if (!leads(loop)) return
  const { dependencies, orphans, looks } = loop
  const names = new Set([...dependencies.index.names(), ...orphans.namespaces()])
  // How many are dead is known before the first of them is replaced.
  for (const namespace of names) looks.at(namespace)
  for (const namespace of names) lookAt(loop, namespace)
}

function wake(loop: Loop, namespace: string): void {
  if (!leads(loop)) return
  if (loop.waitingFor.delete(namespace)) loop.failures.clear(namespace)
  if (loop.replacements.isFirst(namespace)) {
    release(loop, loop.looks.at(namespace).organization)
    lookAtAll(loop)
  } else lookAt(loop, namespace)
}

/** The namespaces that waited for something of their organization go on. */
function release({ failures, waitingFor }: Loop, organization: string): void {
  for (const [namespace, awaited] of waitingFor) {
    if (awaited !== organization) continue
    waitingFor.delete(namespace)
    failures.clear(namespace)
  }
}

async function runOne(loop: Loop, namespace: string): Promise<void> {
  const { reconcile, failures, term } = loop
  const { signal } = term.controller
  try {
    const outcome = await reconcile.run(namespace, signal)
    if (outcome === 'waiting') return keepWaiting(loop, namespace)
    failures.succeeded(namespace, outcome === 'acted')
    if (outcome === 'acted') lookAt(loop, namespace)
  } catch (error) {
    if (!signal.aborted && leads(loop)) failOrWait(loop, namespace, error)
  }
}

/** Its failure, if there is one, stays until what it waits for has come. */
function keepWaiting({ looks, waitingFor }: Loop, namespace: string): void {
  waitingFor.set(namespace, looks.at(namespace).organization)
}

function failOrWait(loop: Loop, namespace: string, error: unknown): void {
  const ms = error instanceof WaitForMint ? error.ms : mintLimitMs(error)
  if (ms === undefined) fail(loop, namespace, error)
  else loop.queue.addLater(namespace, priorityOf(loop, namespace), ms)
}

/** Other namespaces reached the limit after this one had checked it. */
function mintLimitMs(error: unknown): number | undefined {
  const isLimit = error instanceof TokenError && error.code === 'mint_limit'
  return isLimit ? (error.retryAfterMs ?? 1000) : undefined
}

function fail(loop: Loop, namespace: string, error: unknown): void {
  const { failures, count, report, dependencies, looks, lists, replacements, waitingFor } = loop
  const { organization } = looks.at(namespace)
  const isAwaited = error === lists.problem(organization) || replacements.isProblem(error)
  if (isAwaited) waitingFor.set(namespace, organization)
  const policy = classify(error)
  const { code, message } = policy
  count('any', code)
  const isNew = failures.refuse(namespace, policy)
  if (code === 'internal_error') {
    dependencies.logger.error({ namespace, at: framesOf(error) }, message)
  } else if (isNew) report.begin(namespace, policy)
}

/** After each try to list: the namespaces that waited for it go on, or report why they cannot. */
function listed(loop: Loop, organization: string, error: TokenError | undefined): void {
  if (error === undefined) {
    release(loop, organization)
    loop.failures.environmentAnswers()
  }
  lookAtAll(loop)
}

/**
 * A list may show that tokens can be revoked; several, that nothing of ours is left in an organization
 * that the settings do not name. One that does not show our mark is not believed.
 */
async function completed(loop: Loop, organization: string): Promise<void> {
  const { lists, dependencies } = loop
  const { leadership, environment } = dependencies
  const { inventory, identity, organizationsInUse } = environment
  await identity.onList(organization)
  reportAlarm(loop)
  const mayRevoke = (each: string) => identity.mayRevoke({ organization: each, mintedByUs: false })
  shareAlone({ leadership, organizations: lists.organizations, mayRevoke })
  lookAtAll(loop)
  const [first] = inventory.organization(organization).namespaces()
  const isEmpty = first === undefined && mayRevoke(organization)
  const count = isEmpty ? (loop.emptyLists.get(organization) ?? 0) + 1 : 0
  loop.emptyLists.set(organization, count)
  if (count >= listsToForget) await organizationsInUse.forget(organization)
  // The Lease may be of an older state than the tokens.
  if (first !== undefined) await organizationsInUse.remember(organization)
}

/** Another pullpass acts under our identity. */
function reportAlarm({ dependencies }: Loop): void {
  const { environment, problems } = dependencies
  const message = environment.identity.alarm()
  const of = { scope: 'cluster', subject: 'identity' } as const
  if (message === undefined) problems.store.clear(of.scope, of.subject)
  else
    problems.store.set({
      ...of,
      code: 'identity_alarm',
      message,
      passing: true,
      retryAt: undefined,
    })
}

/** A term of leadership begins with a list, and a look at everything. */
function begin(loop: Loop): void {
  end(loop)
  const { term, checks, lists, settings, dependencies } = loop
  const { organizationsInUse, inventory, identity } = dependencies.environment
  term.controller = new AbortController()
  const { signal } = term.controller
  organizationsInUse.reload()
  inventory.begin(signal)
  identity.begin(signal)
  checks.begin(signal)
  lists.begin(signal)
  term.timer = setInterval(() => lookAtAll(loop), settings.resyncMs).unref()
  lookAtAll(loop)
}

/** Cuts off what runs, forgets what waits. */
function end(loop: Loop): void {
  const { term, queue, failures, replacements, wanted, waitingFor, emptyLists, dependencies } = loop
  term.controller.abort()
  clearInterval(term.timer)
  queue.clear()
  failures.clearAll()
  dependencies.problems.store.clear('cluster', 'identity')
  forgetAlone(dependencies.leadership)
  replacements.clear()
  wanted.clear()
  waitingFor.clear()
  emptyLists.clear()
}

import {
  createMintedTokens,
  createRevokeTokens,
  type ListFor,
  type RevokeTokens,
  type TokensOfNamespace,
} from '../issuer/inventory.ts'
import { TokenError } from '../issuer/issuer.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import type { PullSecret } from '../pull-secret/pull-secret.ts'
import { createTakeStep, type TakeStep } from './actions.ts'
import { TooManyChanges } from './budgets.ts'
import type { StepOptions, Task } from './ensure-credential.ts'
import { ImmutableSecret, organizationNotAllowed } from './failures.ts'
import { collectTokens } from './orphans.ts'
import { chooseOrganization, type OrganizationRules, plan } from './plan.ts'
import { type CredentialCheck, createCredentialCheck } from './verify.ts'

export interface WorkOptions extends Omit<StepOptions, 'revokeTokens' | 'list' | 'minted'> {
  organizations: OrganizationRules
  rotateAfterMs: number | undefined
  rotateGraceMs: number
  verifyEveryMs: number
  /** Called after each step, for the count. */
  stepDone: (step: string) => void
}

export interface NamespaceWork {
  /** Whether a run would do something now. */
  isNeeded(namespace: string): boolean
  /** The tokens of this namespace are looked through at its next run, until that has worked once. */
  collectLater(tokens: TokensOfNamespace): void
  /** Namespaces whose tokens are still to be looked through. */
  pending(): Iterable<string>
  /** Takes the missing steps, one after the other; true where there was one. */
  run(namespace: string, signal: AbortSignal): Promise<boolean>
}

/** No chain of steps is longer than this. */
const mostSteps = 4

interface Work {
  options: WorkOptions
  revokeTokens: RevokeTokens
  takeStep: TakeStep
  check: CredentialCheck
  /** By namespace; one for each organization. */
  pending: Map<string, TokensOfNamespace[]>
  toCheck: Set<string>
}

/** All that is done for one namespace, in order: the missing steps, orphaned tokens, the seldom check. */
export function createNamespaceWork(options: WorkOptions): NamespaceWork {
  const { mayHold } = options.organizationsInUse
  const shared = { ...options, minted: createMintedTokens(), list: createList(options) }
  const revokeTokens = createRevokeTokens({ ...shared, mayHold })
  const takeStep = createTakeStep({ ...shared, revokeTokens })
  const check = createCredentialCheck({ ...options, everyMs: options.verifyEveryMs, takeStep })
  const work = {
    options,
    revokeTokens,
    takeStep,
    check,
    pending: new Map(),
    toCheck: new Set<string>(),
  }
  return {
    isNeeded: namespace => isNeeded(work, namespace),
    collectLater: tokens => collectLater(work, tokens),
    pending: () => [...work.pending.keys()],
    run: async (namespace, signal) => {
      const giveBack = options.budgets.mark(namespace)
      try {
        const steps = await takeSteps(work, namespace, signal)
        const collected = await collect(work, namespace, signal)
        return (await checkCredential(work, namespace, signal)) || collected || steps > 0
      } catch (error) {
        if (isOfPlatform(error)) giveBack()
        throw error
      }
    },
  }
}

function createList({ issuer, budgets }: WorkOptions): ListFor {
  return async (namespace, organization, signal) => {
    budgets.check(namespace, 'lookup')
    budgets.take(namespace, 'lookup')
    return issuer.list(organization, signal)
  }
}

/** The namespace has no part in this failure, so it costs the namespace nothing. */
function isOfPlatform(error: unknown): boolean {
  if (error instanceof TokenError) return error.scope === 'environment' || error.code === 'aborted'
  const { status = 503 } = error instanceof KubernetesError ? error : { status: 0 }
  return status === 429 || status >= 500
}

function collectLater({ pending }: Work, tokens: TokensOfNamespace): void {
  const { namespace, organization } = tokens
  const others = (pending.get(namespace) ?? []).filter(each => each.organization !== organization)
  pending.set(namespace, [...others, tokens])
}

function isNeeded({ options, check, pending, toCheck }: Work, namespace: string): boolean {
  const secret = options.index.secrets.get(namespace)
  if (isInUse(secret) && check.isDue(namespace)) toCheck.add(namespace)
  if (pending.has(namespace) || toCheck.has(namespace)) return true
  const task = nextTask(options, namespace)
  return 'refused' in task || task.step.do !== 'nothing' || task.step.because === 'immutable'
}

function nextTask(options: WorkOptions, namespace: string): Task | { refused: string } {
  const { index, organizations, now } = options
  const state = index.namespaces.get(namespace)
  const secret = index.secrets.get(namespace)
  const choice =
    state === undefined || state.terminating
      ? { organization: options.organizations.organization }
      : chooseOrganization(namespace, state.organization, organizations)
  if ('refused' in choice) return choice
  const step = plan(state, secret, { ...options, ...choice, now: now() })
  return { namespace, ...choice, step }
}

async function takeSteps(work: Work, namespace: string, signal: AbortSignal): Promise<number> {
  for (let count = 0; count < mostSteps; count++) {
    const task = nextTask(work.options, namespace)
    if ('refused' in task) throw organizationNotAllowed(task.refused)
    if (task.step.do === 'nothing') {
      if (task.step.because === 'immutable') throw new ImmutableSecret()
      return count
    }
    await work.takeStep(task, signal)
    work.options.stepDone(task.step.do)
  }
  // Somebody changes the Secret all the time: its budget decides when it goes on.
  return mostSteps
}

async function collect(work: Work, namespace: string, signal: AbortSignal): Promise<boolean> {
  const all = work.pending.get(namespace)
  if (all === undefined) return false
  const options = { ...work.options, revokeTokens: work.revokeTokens }
  try {
    for (const tokens of all) await collectTokens(tokens, options, signal)
  } catch (error) {
    // Nobody waits for it: the next look at all namespaces goes on with it.
    if (error instanceof TooManyChanges) return false
    throw error
  }
  if (work.pending.get(namespace) === all) work.pending.delete(namespace)
  work.options.stepDone('collect')
  return true
}

async function checkCredential(
  { options, check, toCheck }: Work,
  namespace: string,
  signal: AbortSignal,
): Promise<boolean> {
  if (!toCheck.has(namespace)) return false
  toCheck.delete(namespace)
  const task = nextTask(options, namespace)
  if ('refused' in task || options.index.namespaces.get(namespace) === undefined) return false
  const checked = await check.run(namespace, task.organization, signal)
  if (checked) options.stepDone('check')
  return checked
}

function isInUse(secret: PullSecret | undefined): boolean {
  const isKept = secret?.revokeAt === undefined && !secret?.terminating
  return secret?.ours === true && secret.wellFormed && isKept
}

import { chooseOrganization, type OrganizationRules } from '../pull-secret/organization.ts'
import { plan } from '../pull-secret/plan.ts'
import type { PullSecret } from '../pull-secret/pull-secret.ts'
import {
  createRevokeTokens,
  type RevokeTokens,
  type TokensOfNamespace,
} from '../registry-token/revoke-tokens.ts'
import { type CredentialCheck, createCredentialCheck } from './check-credential.ts'
import type { StepOptions, Task } from './obtain-credential.ts'
import { organizationNotAllowed } from './refusal.ts'
import { createTakeStep, type TakeStep } from './take-step.ts'
import { tidyTokens } from './tidy-tokens.ts'

export interface WorkOptions extends Omit<StepOptions, 'revokeTokens'> {
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
  tidyLater(tokens: TokensOfNamespace): void
  /** Namespaces whose tokens are still to be looked through. */
  untidy(): Iterable<string>
  /** Takes the missing steps, one after the other; true where there was one. */
  run(namespace: string, signal: AbortSignal): Promise<boolean>
}

/** No chain of steps is longer than this; more would be going round in a circle. */
const mostSteps = 4

interface Work {
  options: WorkOptions
  revokeTokens: RevokeTokens
  takeStep: TakeStep
  check: CredentialCheck
  /** By namespace; one for each organization. */
  untidy: Map<string, TokensOfNamespace[]>
  toCheck: Set<string>
}

/** All that is done for one namespace, in order: the missing steps, stray tokens, the seldom check. */
export function createNamespaceWork(options: WorkOptions): NamespaceWork {
  const revokeTokens = createRevokeTokens(options)
  const takeStep = createTakeStep({ ...options, revokeTokens })
  const check = createCredentialCheck({ ...options, everyMs: options.verifyEveryMs, takeStep })
  const work = {
    options,
    revokeTokens,
    takeStep,
    check,
    untidy: new Map(),
    toCheck: new Set<string>(),
  }
  return {
    isNeeded: namespace => isNeeded(work, namespace),
    tidyLater: tokens => tidyLater(work, tokens),
    untidy: () => [...work.untidy.keys()],
    run: async (namespace, signal) => {
      const steps = await takeSteps(work, namespace, signal)
      const tidied = await tidy(work, namespace, signal)
      return (await checkCredential(work, namespace, signal)) || tidied || steps > 0
    },
  }
}

function tidyLater({ untidy }: Work, tokens: TokensOfNamespace): void {
  const { namespace, organization } = tokens
  const others = (untidy.get(namespace) ?? []).filter(each => each.organization !== organization)
  untidy.set(namespace, [...others, tokens])
}

function isNeeded({ options, check, untidy, toCheck }: Work, namespace: string): boolean {
  const secret = options.index.secrets.get(namespace)
  if (isInUse(secret) && check.isDue(namespace)) toCheck.add(namespace)
  if (untidy.has(namespace) || toCheck.has(namespace)) return true
  const task = nextTask(options, namespace)
  return 'refused' in task || task.step.do !== 'nothing'
}

function nextTask(options: WorkOptions, namespace: string): Task | { refused: string } {
  const { index, organizations, now } = options
  const state = index.namespaces.get(namespace)
  const secret = index.secrets.get(namespace)
  const choice =
    state === undefined || state.terminating
      ? { organization: secret?.organization ?? '' }
      : chooseOrganization(namespace, state.organization, organizations)
  if ('refused' in choice) return choice
  const step = plan(state, secret, { ...options, ...choice, now: now() })
  return { namespace, ...choice, step }
}

async function takeSteps(work: Work, namespace: string, signal: AbortSignal): Promise<number> {
  for (let count = 0; count < mostSteps; count++) {
    const task = nextTask(work.options, namespace)
    if ('refused' in task) throw organizationNotAllowed(task.refused)
    if (task.step.do === 'nothing') return count
    await work.takeStep(task, signal)
    work.options.stepDone(task.step.do)
  }
  throw new Error(`${mostSteps} steps were not enough`)
}

async function tidy(work: Work, namespace: string, signal: AbortSignal): Promise<boolean> {
  const all = work.untidy.get(namespace)
  if (all === undefined) return false
  const options = { ...work.options, revokeTokens: work.revokeTokens }
  for (const tokens of all) await tidyTokens(tokens, options, signal)
  if (work.untidy.get(namespace) === all) work.untidy.delete(namespace)
  work.options.stepDone('tidy')
  return true
}

async function checkCredential(
  { options, check, toCheck }: Work,
  namespace: string,
  signal: AbortSignal,
): Promise<boolean> {
  const secret = options.index.secrets.get(namespace)
  if (!toCheck.has(namespace) || secret?.organization === undefined) return false
  toCheck.delete(namespace)
  const checked = await check.run(namespace, secret.organization, signal)
  if (checked) options.stepDone('check')
  return checked
}

function isInUse(secret: PullSecret | undefined): boolean {
  return secret?.ours === true && secret.wellFormed && secret.retireAt === undefined
}

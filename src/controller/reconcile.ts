import { findRow, type Inventory, type InventoryToken } from '../issuer/inventory.ts'
import type { OptedInNamespace, PullSecretIndex } from '../pull-secret/cache.ts'
import type { PullSecret } from '../pull-secret/pull-secret.ts'
import type { TakeStep } from './actions.ts'
import type { Credentials } from './ensure-credential.ts'
import { ImmutableSecret, NotManaged, organizationNotAllowed } from './failures.ts'
import type { Lists } from './lists.ts'
import type { Orphans } from './orphans.ts'
import {
  ageAt,
  chooseOrganization,
  isOver,
  lifeOf,
  type OrganizationRules,
  plan,
  type Step,
  type TokenKnowledge,
  verdict,
} from './plan.ts'
import type { Replacements } from './replacement.ts'
import type { CredentialChecks } from './verify.ts'

/** No run takes more steps than this. */
const mostSteps = 4

interface RunDependencies {
  looks: Looks
  lists: Lists
  credentials: Credentials
  replacements: Replacements
  takeStep: TakeStep
  orphans: Orphans
  /** Called after each step, for the count. */
  stepDone: (step: string) => void
}

/** The limit of mints is reached: the namespace waits without a worker. */
export class WaitForMint extends Error {
  readonly ms: number

  constructor(ms: number) {
    super('waiting for the limit of mints')
    this.ms = ms
  }
}

export interface Reconcile {
  /** Takes the missing steps, one after the other, then revokes what is left over. */
  run(namespace: string, signal: AbortSignal): Promise<'acted' | 'nothing_to_do' | 'waiting'>
}

/**
 * The road of a namespace:
 *
 * 1. What is it like, and which step is missing? (`plan.ts`)
 * 2. Nothing, and something is wrong: that is thrown, and reported.
 * 3. A step: it is taken (`actions.ts`), and the next one is looked for.
 * 4. Tokens that it does not need are revoked (`orphans.ts`).
 *
 * @throws WaitForMint, TokenError, KubernetesError, TooManyChanges, ImmutableSecret.
 */
export function createReconcile(dependencies: RunDependencies): Reconcile {
  const { orphans, stepDone } = dependencies
  return {
    run: async (namespace, signal) => {
      const { steps, found } = await takeSteps(namespace, dependencies, signal)
      const isWaiting = problemOf(found, dependencies)
      const revoked = await orphans.collect(namespace, signal)
      if (revoked > 0) stepDone('collect')
      if (steps + revoked > 0) return 'acted'
      return isWaiting ? 'waiting' : 'nothing_to_do'
    },
  }
}

async function takeSteps(
  namespace: string,
  { looks, credentials, takeStep, stepDone }: RunDependencies,
  signal: AbortSignal,
): Promise<{ steps: number; found: Found }> {
  for (let steps = 0; ; steps++) {
    const found = looks.at(namespace)
    if (isRefused(found) || found.step.do === 'nothing') return { steps, found }
    // Somebody changes the Secret all the time: its budget decides when it goes on.
    if (steps === mostSteps) return { steps, found }
    waitForMint(found, credentials)
    await takeStep(found, signal)
    stepDone(found.step.do)
  }
}

/** The namespace asks for an organization that it may not use. */
function isRefused({ refused, state }: Found): boolean {
  return refused !== undefined && state?.terminating === false
}

function waitForMint(
  { step, namespace, organization, secret }: Found,
  credentials: Credentials,
): void {
  if (step.do !== 'ensure' && step.do !== 'renew') return
  const ms = credentials.availableIn({ namespace, organization, except: secret?.token?.hash })
  if (ms > 0) throw new WaitForMint(ms)
}

/** Throws what keeps the namespace from its Secret; true: it waits for something to happen. */
function problemOf(found: Found, { lists, replacements }: RunDependencies): boolean {
  const { step, organization, refused } = found
  if (isRefused(found)) throw organizationNotAllowed(refused ?? '')
  if (step.do !== 'nothing') return true
  if (step.because === 'immutable') throw new ImmutableSecret()
  if (step.because === 'not_managed') throw new NotManaged()
  const problem =
    step.because === 'no_list'
      ? lists.problem(organization)
      : step.because === 'another_goes_first'
        ? replacements.problem(organization)
        : undefined
  if (problem !== undefined) throw problem
  return step.because === 'no_list' || step.because === 'another_goes_first'
}

interface LookDependencies {
  index: PullSecretIndex
  inventory: Inventory
  lists: Lists
  credentials: Credentials
  checks: CredentialChecks
  replacements: Replacements
  mayRevoke: (token: InventoryToken) => boolean
  now: () => Date
}

interface LookSettings {
  organizations: OrganizationRules
  rotateAfterMs: number | undefined
  rotateGraceMs: number
}

/** What a namespace is like, and what it needs. */
export interface Found {
  namespace: string
  state: OptedInNamespace | undefined
  secret: PullSecret | undefined
  /** The organization that it should use. */
  organization: string
  /** Why it may not use the one it asks for. */
  refused: string | undefined
  /** Of the token in its Secret. */
  row: InventoryToken | undefined
  step: Step
}

export interface Looks {
  /** By what is in memory. */
  at(namespace: string): Found
  /** By a live read. */
  from(
    namespace: string,
    state: OptedInNamespace | undefined,
    secret: PullSecret | undefined,
  ): Found
}

/** Joins what the watches, the inventory and the registry say of a namespace, and plans its step. */
export function createLooks(dependencies: LookDependencies, settings: LookSettings): Looks {
  const { index } = dependencies
  const from: Looks['from'] = (namespace, state, secret) =>
    look(dependencies, settings, { namespace, state, secret })
  return {
    from,
    at: name => from(name, index.namespaces.get(name), index.secrets.get(name)),
  }
}

function look(
  dependencies: LookDependencies,
  settings: LookSettings,
  about: { namespace: string; state: OptedInNamespace | undefined; secret: PullSecret | undefined },
): Found {
  const { lists, credentials, mayRevoke, now } = dependencies
  const { namespace, state, secret } = about
  const choice = chooseOrganization(namespace, state?.organization, settings.organizations)
  const refused = 'refused' in choice ? choice.refused : undefined
  const organization =
    'refused' in choice ? settings.organizations.organization : choice.organization
  const token = knowledgeOf(dependencies, secret)
  const step = plan(state, secret, token, {
    now: now(),
    organization,
    listed: lists.listed(organization) && !credentials.isUncertain(namespace),
    mayReplace: mayReplace(dependencies, about, organization, token),
    mayRevoke: token.row !== undefined && mayRevoke(token.row),
    previousIsOver: previousIsOver(dependencies, settings, secret, token),
    rotateAfterMs: settings.rotateAfterMs,
  })
  return { ...about, organization, refused, row: token.row, step }
}

function knowledgeOf(
  { inventory, lists, checks }: LookDependencies,
  secret: PullSecret | undefined,
): TokenKnowledge {
  const token = secret?.token
  if (token === undefined) return { row: undefined, refused: false }
  return {
    row: findRow(inventory, lists.organizations(), token),
    refused: checks.isRefused(token.hash),
  }
}

function mayReplace(
  { replacements, now }: LookDependencies,
  {
    namespace,
    state,
    secret,
  }: { namespace: string; state: unknown; secret: PullSecret | undefined },
  organization: string,
  token: TokenKnowledge,
): boolean {
  const isHeld = state !== undefined && secret?.ours === true && secret.token !== undefined
  const isDead = isHeld && verdict(namespace, token, now()) === 'dead'
  // One that a list shows as dead says nothing of what the registry makes of new tokens.
  const isListedDead = verdict(namespace, { ...token, refused: false }, now()) === 'dead'
  const other = isHeld ? 'in_use' : 'none'
  replacements.observe(
    organization,
    namespace,
    isDead ? (isListedDead ? 'dead' : 'refused') : other,
  )
  return !isDead || replacements.mayReplace(organization, namespace)
}

/** The token before this one is revoked, or gone; or its grace is over and no list can show it. */
function previousIsOver(
  { inventory, lists, now }: LookDependencies,
  { rotateGraceMs }: LookSettings,
  secret: PullSecret | undefined,
  { row }: TokenKnowledge,
): boolean {
  if (secret?.previousTokenId === undefined) return false
  const inUse = [...lists.organizations()].map(each => inventory.organization(each))
  const previous = inUse
    .flatMap(each => each.ofNamespace(secret.namespace))
    .find(({ id }) => id === secret.previousTokenId)
  if (previous !== undefined) return isOver(previous, now())
  if (row !== undefined) return inUse.every(each => each.lists > 0 || each.unsupported)
  return ageAt(now(), lifeOf(secret, row).mintedAt) >= rotateGraceMs
}

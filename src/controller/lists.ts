import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { framesOf } from '../failure.ts'
import type { Inventory } from '../issuer/inventory.ts'
import { TokenError } from '../issuer/issuer.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import type { OrganizationsInUse } from './organizations.ts'

export interface Lists {
  begin(signal: AbortSignal): void
  /** The organizations that are listed. */
  organizations(): Iterable<string>
  /** Why the last list of the organization failed; undefined: it did not. */
  problem(organization: string): TokenError | undefined
  /** A first token may be minted: a list is there, or the environment gives none. */
  listed(organization: string): boolean
}

interface Dependencies {
  inventory: Inventory
  issuer: { onCredentialChange(listener: () => void): void }
  organizationsInUse: OrganizationsInUse
  /** A list is complete, is not supported, or failed (then `error`). */
  done: (organization: string, error: TokenError | undefined) => void
  logger: Logger
}

interface Settings {
  everyMs: number
  /** From the first list of a term to the second: what a former leader began may end late. */
  againMs: number
}

interface State extends Dependencies {
  settings: Settings
  running: Set<string>
  problems: Map<string, TokenError>
  /** Ends the pauses when the credentials change. */
  pauses: AbortController
}

/** After so many failures in a row, first tokens are minted without a list. */
export const mostFailures = 3
const shortestPauseMs = 5000

/**
 * Lists the tokens of each organization in use, each at its own pace.
 *
 * | the last list                | the next one                                     |
 * |------------------------------|--------------------------------------------------|
 * | none in this term            | at once                                          |
 * | the first of the term        | after the duration of the Lease                  |
 * | complete, or not supported   | after `listEverySeconds`                         |
 * | failed once or twice         | as soon as the inventory allows it               |
 * | failed more often            | after 10 s, then twice as long as before, up to  |
 * |                              | `listEverySeconds`                               |
 * | any, the credentials changed | at once                                          |
 */
export function createLists(dependencies: Dependencies, settings: Settings): Lists {
  const state: State = {
    ...dependencies,
    settings,
    running: new Set(),
    problems: new Map(),
    pauses: new AbortController(),
  }
  const { inventory, issuer, running, problems } = state
  issuer.onCredentialChange(() => {
    state.pauses.abort()
    state.pauses = new AbortController()
  })
  return {
    begin: signal => {
      running.clear()
      problems.clear()
      void followOrganizations(state, signal)
    },
    organizations: () => [...running],
    problem: organization => problems.get(organization),
    listed: organization => {
      const { lists, unsupported, failed } = inventory.organization(organization)
      return lists > 0 || unsupported || failed >= mostFailures
    },
  }
}

/** The organizations of the settings at once, those on the Lease when it can be read. */
async function followOrganizations(state: State, signal: AbortSignal): Promise<void> {
  const { organizationsInUse, settings, logger } = state
  while (!signal.aborted) {
    try {
      for (const each of organizationsInUse.named()) follow(state, each, signal)
      for (const each of await organizationsInUse.all()) follow(state, each, signal)
      await pause(state, settings.everyMs, signal)
    } catch (error) {
      const about =
        error instanceof KubernetesError ? { problem: error.message } : { at: framesOf(error) }
      logger.warn(about, 'cannot read which organizations are in use')
      await pause(state, shortestPauseMs, signal)
    }
  }
}

function follow(state: State, organization: string, signal: AbortSignal): void {
  if (signal.aborted || state.running.has(organization)) return
  state.running.add(organization)
  void listAgainAndAgain(state, organization, signal)
}

async function listAgainAndAgain(
  state: State,
  organization: string,
  signal: AbortSignal,
): Promise<void> {
  const { settings, running } = state
  let isFirst = true
  do {
    const listed = await list(state, organization, signal)
    const firstMs = isFirst ? settings.againMs : settings.everyMs
    const ms = listed ? firstMs : retryMs(state, organization)
    isFirst = false
    await pause(state, Math.min(ms, settings.everyMs), signal)
  } while (!signal.aborted && (await isInUse(state, organization)))
  if (!signal.aborted) running.delete(organization)
}

function retryMs({ inventory }: State, organization: string): number {
  const { failed } = inventory.organization(organization)
  return failed < mostFailures ? 0 : shortestPauseMs * 2 ** (failed - mostFailures + 1)
}

async function isInUse({ organizationsInUse }: State, organization: string): Promise<boolean> {
  try {
    return (await organizationsInUse.all()).has(organization)
  } catch {
    return true
  }
}

async function list(state: State, organization: string, signal: AbortSignal): Promise<boolean> {
  const { inventory, problems, done, logger } = state
  try {
    await inventory.refresh(organization, signal)
    problems.delete(organization)
    done(organization, undefined)
    return true
  } catch (error) {
    if (signal.aborted) return false
    if (!(error instanceof TokenError)) {
      logger.error({ organization, at: framesOf(error) }, 'cannot use a list')
      return false
    }
    const { code, message } = error
    if (problems.get(organization)?.code !== code) {
      logger.warn({ organization, code }, `cannot list tokens: ${message}`)
    }
    problems.set(organization, error)
    done(organization, error)
    return false
  }
}

async function pause({ pauses }: State, ms: number, signal: AbortSignal): Promise<void> {
  const end = AbortSignal.any([signal, pauses.signal])
  await sleep(ms, undefined, { signal: end, ref: false }).catch(() => {})
}

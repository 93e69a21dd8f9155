import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'
import { tokenHash } from '../jwt.ts'
import { inTime } from '../time-limit.ts'
import { type Issuer, type MintedToken, TokenError } from './issuer.ts'
import type { Marks } from './marks.ts'
import {
  createOrganizationTokens,
  type Holds,
  type InventoryToken,
  type OrganizationTokens,
} from './organization-tokens.ts'

export { markDescription, readDescription, tokenDescription } from './description.ts'
export { type InventoryToken, isLive } from './organization-tokens.ts'

/** What the last complete list of an organization shows, with our own changes since. */
interface OrganizationInventory {
  /** Complete lists of this term. 0: none yet. */
  readonly lists: number
  /** Lists that failed in a row since the last complete one. */
  readonly failed: number
  /** When the last complete list was requested. */
  readonly listedAt: Date | undefined
  /**
   * The environment cannot list. Known are the tokens that this process minted, and what lists of
   * this term showed before.
   */
  readonly unsupported: boolean
  /** Rows with a description of ours for this namespace, live or not, own mints included. */
  ofNamespace(namespace: string): InventoryToken[]
  /** Every namespace that has a live row of ours here. */
  namespaces(): Iterable<string>
  /** The row with this hash, else, where the row has no text, with this id. */
  find(token: { hash: string; id: string | undefined }): InventoryToken | undefined
  /** Live marks of this cluster, by nonce. */
  marks(): Marks
}

/**
 * The tokens of the organizations in use: ours, and those that a Secret of ours holds, with a hash
 * in place of the text. All other rows of a list are dropped as they are read.
 *
 * | event                                  | the inventory                                        |
 * |----------------------------------------|------------------------------------------------------|
 * | a term begins                          | empty; tokens minted by this process stay known where |
 * |                                        | the environment cannot list                          |
 * | a complete list                        | its rows, and our mints that it does not show while   |
 * |                                        | they are younger than a minute                       |
 * | a list that is cut short or unreadable | unchanged, but for the count of failures             |
 * | minted                                 | a row more, not yet seen in a list                   |
 * | revoked                                | the row is revoked and never adopted again. A list   |
 * |                                        | that shows it as live is believed after ten minutes  |
 */
export interface Inventory {
  /** A term begins: nothing listed before counts. The inventory lists until the signal aborts. */
  begin(signal: AbortSignal): void
  /** Empty where nothing was listed. */
  organization(organization: string): OrganizationInventory
  /**
   * Lists the organization. Callers share a list that has not been requested yet; two lists of an
   * organization are requested at least five seconds apart. Rejects with a TokenError.
   */
  refresh(organization: string, signal: AbortSignal): Promise<void>
  /** Calls the listener after each complete list. */
  onList(listener: (organization: string) => void): void
  minted(organization: string, description: string, token: MintedToken): void
  revoked(organization: string, id: string): void
}

/** The row of a token, in whichever of these organizations it is. */
export function findRow(
  inventory: Inventory,
  organizations: Iterable<string>,
  token: { hash: string; id: string | undefined },
): InventoryToken | undefined {
  for (const each of organizations) {
    const row = inventory.organization(each).find(token)
    if (row !== undefined) return row
  }
  return undefined
}

interface InventoryDependencies {
  issuer: { list: Issuer['list'] }
  holds: () => Holds
  now: () => Date
  logger: Logger
  metrics: Registry
}

const pauseMs = 5000

interface Organization {
  tokens: OrganizationTokens
  failed: number
  listedAt: Date | undefined
  unsupported: boolean
  running: Promise<void> | undefined
  /** The list that follows the running one, or the pause after it. */
  next: Promise<void> | undefined
  /** By the monotonic clock. */
  mayListAt: number
}

export function createInventory(
  dependencies: InventoryDependencies,
  { cluster }: { cluster: string },
): Inventory {
  const { now } = dependencies
  const organizations = new Map<string, Organization>()
  const none = newOrganization('', cluster, now)
  const listeners: ((organization: string) => void)[] = []
  let term = AbortSignal.abort()
  const report = createReport(dependencies)
  const of = (name: string): Organization => {
    const found = organizations.get(name) ?? newOrganization(name, cluster, now)
    organizations.set(name, found)
    return found
  }
  const list = async (name: string, organization: Organization, signal: AbortSignal) => {
    const listed = await readList(name, organization, dependencies, signal)
    report(organizations.values())
    if (listed === 'complete') for (const listener of listeners) listener(name)
  }
  return {
    begin: signal => {
      term = signal
      for (const [name, former] of organizations) {
        organizations.set(name, afresh(former, newOrganization(name, cluster, now)))
      }
    },
    organization: name => new View(() => organizations.get(name) ?? none),
    refresh: (name, signal) => {
      const organization = of(name)
      organization.next ??= follow(organization, term, work => list(name, organization, work))
      return untilAborted(organization.next, signal)
    },
    onList: listener => void listeners.push(listener),
    minted: (name, description, token) =>
      of(name).tokens.minted(description, token, tokenHash(token.text)),
    revoked: (name, id) => of(name).tokens.revoked(id),
  }
}

function newOrganization(name: string, cluster: string, now: () => Date): Organization {
  return {
    tokens: createOrganizationTokens({ now }, { organization: name, cluster }),
    failed: 0,
    listedAt: undefined,
    unsupported: false,
    running: undefined,
    next: undefined,
    mayListAt: 0,
  }
}

/** Takes over what does not depend on the lists of the term before. */
function afresh({ tokens, mayListAt }: Organization, next: Organization): Organization {
  next.tokens.remember(tokens)
  next.mayListAt = mayListAt
  return next
}

/** A class, as it is made for every look at every namespace. */
class View implements OrganizationInventory {
  readonly #of: () => Organization

  constructor(of: () => Organization) {
    this.#of = of
  }

  get lists(): number {
    return this.#of().tokens.lists()
  }

  get failed(): number {
    return this.#of().failed
  }

  get listedAt(): Date | undefined {
    return this.#of().listedAt
  }

  get unsupported(): boolean {
    return this.#of().unsupported
  }

  ofNamespace(namespace: string): InventoryToken[] {
    return this.#of().tokens.ofNamespace(namespace)
  }

  namespaces(): Iterable<string> {
    return this.#of().tokens.namespaces()
  }

  find(token: { hash: string; id: string | undefined }): InventoryToken | undefined {
    return this.#of().tokens.find(token)
  }

  marks(): Marks {
    return this.#of().tokens.marks()
  }
}

/** Starts the work after the running list and the pause. From its start on, callers need another. */
async function follow(
  organization: Organization,
  term: AbortSignal,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  await organization.running?.catch(() => {})
  const waitMs = organization.mayListAt - performance.now()
  if (waitMs > 0) await sleep(waitMs, undefined, { signal: term }).catch(() => {})
  organization.next = undefined
  if (term.aborted) throw aborted()
  organization.mayListAt = performance.now() + pauseMs
  organization.running = work(term).finally(() => {
    organization.running = undefined
  })
  return organization.running
}

async function readList(
  name: string,
  organization: Organization,
  { issuer, holds, now }: InventoryDependencies,
  signal: AbortSignal,
): Promise<'complete' | 'unsupported'> {
  const begunAt = now()
  const reading = organization.tokens.read(holds(), begunAt)
  try {
    const listed = await issuer.list(name, reading.row, signal)
    if (signal.aborted) throw aborted()
    organization.failed = 0
    organization.unsupported = listed === 'unsupported'
    if (listed === 'complete') {
      reading.complete()
      organization.listedAt = begunAt
    } else organization.tokens.unsupported()
    return listed
  } catch (error) {
    if (!signal.aborted) organization.failed += 1
    throw error
  }
}

/** Lets one caller leave; the list, which others share, goes on. */
async function untilAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  return inTime(work, { signal }).catch(error => {
    throw signal.aborted ? aborted() : error
  })
}

function aborted(): TokenError {
  return new TokenError('stopped before the environment answered', {
    kind: 'transient',
    scope: 'organization',
    code: 'aborted',
  })
}

/** Where the environment cannot list, a token whose answer was lost is not found again. */
function createReport({ logger, metrics }: InventoryDependencies) {
  const gauge = new Gauge({
    name: 'pullpass_environment_cannot_list',
    help: '1 where the environment cannot list tokens, so that lost ones are not found again',
    registers: [metrics],
  })
  let reported = false
  return (organizations: Iterable<Organization>) => {
    const cannot = [...organizations].some(({ unsupported }) => unsupported)
    gauge.set(Number(cannot))
    if (cannot && !reported) {
      logger.warn('the environment cannot list tokens: lost ones are not found again')
    }
    reported = cannot
  }
}

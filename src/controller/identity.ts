import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'
import { framesOf } from '../failure.ts'
import { markDescription } from '../issuer/inventory.ts'
import { type MintedToken, type MintRequest, TokenError } from '../issuer/issuer.ts'
import type { ListedMark } from '../issuer/marks.ts'
import { KubernetesError } from '../kubernetes/client.ts'
import { createNonces, type Nonces } from './nonces.ts'
import type { Note } from './organizations.ts'
import {
  hasStoodAlone,
  isMarkDue,
  isMissing,
  judge,
  type Mark,
  newStanding,
  type Standing,
  unsettle,
} from './standing.ts'

/** Whether this pullpass is the only one with its identity. */
export interface Identity {
  /** A term begins: no list read before counts. It ends with the signal. */
  begin(signal: AbortSignal): void
  /** After each complete list of an organization: keeps the mark there. Never rejects. */
  onList(organization: string): Promise<void>
  /** What is wrong, for people, as the last lists show it; nothing is revoked and no Secret deleted. */
  alarm(): string | undefined
  /**
   * Whether the token may be revoked: our mark stands alone, and no alarm is on. Where the environment
   * cannot list, no mark is seen: only what this process minted may be revoked there.
   */
  mayRevoke(token: { organization: string; mintedByUs: boolean }): boolean
  /** Revokes the marks of this term. For a process without a successor that would do it. */
  takeBack(): Promise<void>
}

interface IdentityDependencies {
  inventory: MarkInventory
  issuer: MarkIssuer
  note: Note
  organizationsInUse: () => Promise<ReadonlySet<string>>
  now: () => Date
  logger: Logger
  metrics: Registry
  /** Throws unless this process leads: asked right before every mint, write and revocation. */
  assertLeading: () => void
}

interface IdentitySettings {
  /** The name in the descriptions of our tokens. */
  cluster: string
  /** Interval between two lists of an organization, here and in a clone. */
  listEveryMs: number
}

interface MarkInventory {
  organization(organization: string): {
    lists: number
    listedAt: Date | undefined
    unsupported: boolean
    marks(): ReadonlyMap<string, ListedMark>
  }
  minted(organization: string, description: string, token: MintedToken): void
  revoked(organization: string, id: string): void
}

interface MarkIssuer {
  mint(request: MintRequest, signal: AbortSignal): Promise<MintedToken>
  revoke(organization: string, id: string, signal: AbortSignal): Promise<void>
}

interface Term {
  signal: AbortSignal
  organizations: Map<string, Standing>
  /** One look after the other, for each organization. */
  work: Map<string, Promise<void>>
}

interface State {
  dependencies: IdentityDependencies
  settings: IdentitySettings
  nonces: Nonces
  term: Term
  /** The alarm that was logged. */
  logged: string | undefined
}

const renewAfterMs = 12 * 3_600_000
const againMs = 3000

/**
 * Leaves a mark of each leader in every organization in use: a token that expires, stored nowhere,
 * with a nonce in its description. A cluster that was restored from a snapshot of this one has the
 * same identity, and leaves marks too: each finds the other's in the environment's list.
 *
 * | the list shows                             | what follows                                       |
 * |--------------------------------------------|----------------------------------------------------|
 * | our mark alone                             | after two lists: tokens may be revoked             |
 * | no mark of this term                       | one is made, our older ones are revoked            |
 * | our mark, made 12 h ago                    | the same                                           |
 * | our mark no longer                         | a new one at once: the other side has to see it    |
 * | our new mark not yet                       | one more list is awaited, then a new one is made;  |
 * |                                            | after three of them one in ten minutes             |
 * | our new mark not, but one that is not ours | a new one at once                                  |
 * | our mark not, two lists in a row           | alarm                                              |
 * | a live mark whose nonce is not on our Lease | alarm, until ten lists in a row show none         |
 */
export function createIdentity(
  dependencies: IdentityDependencies,
  settings: IdentitySettings,
): Identity {
  const { inventory, note, now, logger, metrics } = dependencies
  const nonces = createNonces({ note, now })
  const term = newTerm(AbortSignal.abort())
  const state: State = { dependencies, settings, nonces, term, logged: undefined }
  countAlarm(state, metrics)
  return {
    begin: signal => {
      state.term = newTerm(signal)
      state.logged = undefined
      nonces.reload()
    },
    onList: organization => {
      const { term } = state
      const before = term.work.get(organization) ?? Promise.resolve()
      const after = before
        .then(() => look(organization, term, state))
        .catch(error => report(organization, term, error, logger))
      term.work.set(organization, after)
      return after
    },
    alarm: () => alarmOf(state),
    mayRevoke: ({ organization, mintedByUs }) => {
      if (state.term.signal.aborted || alarmOf(state) !== undefined) return false
      const { unsupported } = inventory.organization(organization)
      return unsupported ? mintedByUs : standsAlone(organization, state)
    },
    takeBack: () => takeBack(state),
  }
}

function newTerm(signal: AbortSignal): Term {
  return { signal, organizations: new Map(), work: new Map() }
}

/** One list of one organization: what it says, then what is to do about our mark. */
async function look(organization: string, term: Term, state: State): Promise<void> {
  const { inventory, organizationsInUse } = state.dependencies
  if (term.signal.aborted) return
  const inUse = await organizationsInUse()
  for (const each of term.organizations.keys())
    if (!inUse.has(each)) term.organizations.delete(each)
  if (!inUse.has(organization)) return
  const marks = () => inventory.organization(organization).marks()
  const ours = await insist(() => oursAmong(marks(), state.nonces), term.signal)
  const standing = term.organizations.get(organization) ?? newStanding()
  const { lists, listedAt } = inventory.organization(organization)
  if (lists <= standing.list || listedAt === undefined) return
  term.organizations.set(organization, standing)
  standing.list = lists
  standing.listedAt = listedAt.getTime()
  judge(standing, marks(), ours)
  logAlarm(organization, standing, state)
  await insist(() => keepMark(organization, standing, term, state), term.signal)
}

/** The other side waits for a mark of ours: a failure of the API server must not cost a whole list. */
async function insist<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let left = 4; ; left--) {
    try {
      return await work()
    } catch (error) {
      if (left === 0 || signal.aborted || !(error instanceof KubernetesError)) throw error
      await sleep(againMs, undefined, { signal, ref: false })
    }
  }
}

/** A nonce that is not known may have been written to the Lease since. */
async function oursAmong(
  marks: ReadonlyMap<string, ListedMark>,
  nonces: Nonces,
): Promise<ReadonlySet<string>> {
  const known = await nonces.load()
  if ([...marks.keys()].every(nonce => known.has(nonce))) return known
  nonces.reload()
  return nonces.load()
}

async function keepMark(
  organization: string,
  standing: Standing,
  term: Term,
  state: State,
): Promise<void> {
  const { inventory, issuer, assertLeading, now, logger } = state.dependencies
  if (isMarkDue(standing, now().getTime())) {
    const mark = await mintMark(organization, term, state)
    const wasShown = standing.mark === undefined || standing.mark.shown
    standing.neverShown = wasShown ? 0 : standing.neverShown + 1
    standing.mark = mark
    unsettle(standing, now())
  }
  const ours = await state.nonces.load()
  for (const [nonce, { id }] of inventory.organization(organization).marks()) {
    if (nonce === standing.mark?.nonce || !ours.has(nonce) || id === '') continue
    assertLeading()
    await issuer.revoke(organization, id, term.signal)
    inventory.revoked(organization, id)
    unsettle(standing, now())
    logger.debug({ organization, mark: nonce }, 'former mark revoked')
  }
}

async function mintMark(organization: string, term: Term, state: State): Promise<Mark> {
  const { inventory, issuer, assertLeading, now, logger } = state.dependencies
  assertLeading()
  const nonce = await state.nonces.next(organization)
  const description = markDescription(state.settings.cluster, nonce)
  assertLeading()
  const token = await issuer.mint({ organization, description, permanent: false }, term.signal)
  state.nonces.used(organization)
  inventory.minted(organization, description, token)
  logger.debug({ organization, mark: nonce }, 'mark made')
  const mintedAt = now().getTime()
  const halfLifeMs = ((token.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY) - mintedAt) / 2
  return { nonce, mintedAt, renewAt: mintedAt + Math.min(renewAfterMs, halfLifeMs), shown: false }
}

async function takeBack({ term, dependencies }: State): Promise<void> {
  const { inventory, issuer } = dependencies
  for (const [organization, { mark }] of term.organizations) {
    const id = inventory
      .organization(organization)
      .marks()
      .get(mark?.nonce ?? '')?.id
    if (!id) continue
    await issuer.revoke(organization, id, term.signal)
    inventory.revoked(organization, id)
  }
}

function standsAlone(organization: string, { term, settings }: State): boolean {
  const standing = term.organizations.get(organization)
  return standing !== undefined && hasStoodAlone(standing, settings.listEveryMs)
}

function alarmOf({ term, settings }: State): string | undefined {
  if (term.signal.aborted) return undefined
  const all = [...term.organizations.values()]
  const until = 'Until this ends, no token is revoked and no Secret is deleted.'
  if (all.some(({ foreign }) => foreign.length > 0)) {
    return (
      `another pullpass uses the name of this cluster, ${settings.cluster}, in the same organization. ${until}` +
      ' Set clusterName to another name in one of the two'
    )
  }
  if (all.some(isMissing)) {
    return (
      `the environment does not list the mark of this cluster, ${settings.cluster}. ${until}` +
      ' If another pullpass uses this name, set clusterName to another name in one of the two'
    )
  }
  return undefined
}

function logAlarm(organization: string, { foreign }: Standing, state: State): void {
  const alarm = alarmOf(state)
  if (alarm === state.logged) return
  state.logged = alarm
  const { logger } = state.dependencies
  if (alarm === undefined) logger.info('no other pullpass uses the name of this cluster any more')
  else logger.warn({ organization, marks: foreign }, alarm)
}

function countAlarm(state: State, metrics: Registry): void {
  new Gauge({
    name: 'pullpass_identity_alarm',
    help: '1 while another pullpass seems to use the name of this cluster, so that nothing is revoked',
    registers: [metrics],
    collect() {
      this.set(Number(alarmOf(state) !== undefined))
    },
  })
}

/** The next list is another chance; until then our mark does not stand alone. */
function report(organization: string, term: Term, error: unknown, logger: Logger): void {
  if (term.signal.aborted) return
  if (error instanceof TokenError || error instanceof KubernetesError) {
    logger.warn({ organization, problem: error.message }, 'mark not kept')
  } else {
    logger.error({ organization, at: framesOf(error) }, 'mark not kept')
  }
}

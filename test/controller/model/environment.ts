import { createHash } from 'node:crypto'
import { readDescription } from '../../../src/issuer/inventory.ts'
import { type Issuer, TokenError } from '../../../src/issuer/issuer.ts'
import type { VirtualTime } from './virtual-time.ts'

/** A token in the environment of the model. */
export interface Row {
  id: string
  organization: string
  description: string
  text: string
  permanent: boolean
  /** The cluster that minted it. */
  by: string
  mintedAt: number
  expiresAt: number
  revokedAt: number
  /** No list ever shows it. */
  hidden: boolean
}

/** What is wrong with the environment at the moment. */
export interface Faults {
  /** Lists show the state of so long ago. */
  listLagMs: number
  /** The part of the rows that a list lacks; a mark only where it lacks all of them. */
  listLacks: number
  listsFail: number
  /** The part of new tokens that no list will ever show. */
  hides: number
  mintsFail: number
  /** The token is minted, and the answer is lost. */
  mintsLost: number
  revokesFail: number
  revokesLost: number
  registryFails: number
}

export const noFaults: Faults = {
  listLagMs: 0,
  listLacks: 0,
  listsFail: 0,
  hides: 0,
  mintsFail: 0,
  mintsLost: 0,
  revokesFail: 0,
  revokesLost: 0,
  registryFails: 0,
}

/** What kind of environment it is. */
export interface Habits {
  /** Texts of tokens show the id. */
  jwt: boolean
  listTexts: boolean
  textById: boolean
  /** The id is derived from the description. */
  sameForSameDescription: boolean
}

export interface ModelEnvironment {
  rows: Row[]
  faults: Faults
  habits: Habits
  /** Called when a token is revoked by pullpass. */
  onRevoke: (row: Row, by: string) => void
  isLive(row: Row): boolean
  byText(text: string): Row | undefined
  /** Live permanent tokens of a cluster name, with their namespaces. */
  liveOf(cluster: string): { row: Row; namespace: string }[]
  /** Nonces of its live marks. */
  marksOf(cluster: string): string[]
  /** For the cluster of this name. */
  issuer(by: string): Issuer
  /** Rows that ended long ago are forgotten. */
  compact(keep: (row: Row) => boolean): void
}

/** Short, so that an alarm does not need a day of the model. */
const markLifeMs = 20 * 60_000

type Call = <T>(work: () => T, signal: AbortSignal) => Promise<T>

export function createModelEnvironment(
  time: VirtualTime,
  random: () => number,
  habits: Habits,
): ModelEnvironment {
  const byText = new Map<string, Row>()
  const isLive = (row: Row, at = time.now()) => row.revokedAt > at && row.expiresAt > at
  const environment: ModelEnvironment = {
    rows: [],
    faults: noFaults,
    habits,
    onRevoke: () => {},
    isLive: row => isLive(row),
    byText: text => byText.get(text),
    liveOf: cluster =>
      environment.rows.flatMap(row => {
        const described = isLive(row) ? readDescription(cluster, row.description) : undefined
        return described !== undefined && 'namespace' in described
          ? [{ row, namespace: described.namespace }]
          : []
      }),
    marksOf: cluster =>
      environment.rows.flatMap(row => {
        const described = isLive(row) ? readDescription(cluster, row.description) : undefined
        return described !== undefined && 'mark' in described ? [described.mark] : []
      }),
    issuer: by => createIssuer({ environment, byText, time, random, by }),
    compact: keep => {
      const kept = environment.rows.filter(row => isLive(row) || keep(row))
      environment.rows = kept
      byText.clear()
      for (const row of kept) byText.set(row.text, row)
    },
  }
  return environment
}

function createIssuer(of: {
  environment: ModelEnvironment
  byText: Map<string, Row>
  time: VirtualTime
  random: () => number
  by: string
}): Issuer {
  const { environment, byText, time, random, by } = of
  const call = createCall(time, random)
  const happens = (share: number) => share > 0 && random() < share
  const fail = (share: number, code: string, sent = true) => {
    if (happens(share)) throw failure(code, sent)
  }
  const find = (organization: string, id: string) =>
    environment.rows.find(row => row.id === id && row.organization === organization)
  const revoke = (row: Row | undefined) => {
    if (row === undefined || !environment.isLive(row)) return
    if (row.permanent) environment.onRevoke(row, by)
    row.revokedAt = time.now()
  }
  return {
    start: () => {},
    close: async () => {},
    problem: () => undefined,
    onCredentialChange: () => {},
    mint: (request, signal) =>
      call(() => {
        const { faults, habits } = environment
        fail(faults.mintsFail, 'outage', false)
        const row = mint(environment, byText, time, {
          ...request,
          by,
          hidden: happens(faults.hides),
        })
        fail(faults.mintsLost, 'lost')
        const expiresAt = row.permanent ? undefined : new Date(row.expiresAt)
        return { text: row.text, id: habits.jwt ? row.id : undefined, expiresAt }
      }, signal),
    list: async (organization, onRow, signal) => {
      const listed = await call(() => {
        fail(environment.faults.listsFail, 'outage')
        const { listLacks } = environment.faults
        const isShown = (row: { expiresAt: Date | undefined }) =>
          row.expiresAt === undefined ? !happens(listLacks) : listLacks < 1
        return list(environment, time, organization).filter(isShown)
      }, signal)
      for (const row of listed) onRow(row)
      return 'complete'
    },
    text: (organization, id, signal) =>
      call(() => {
        fail(environment.faults.listsFail, 'outage')
        if (!environment.habits.textById) return undefined
        return find(organization, id)?.text ?? 'gone'
      }, signal),
    revoke: (organization, id, signal) =>
      call(() => {
        fail(environment.faults.revokesFail, 'outage', false)
        revoke(find(organization, id))
        fail(environment.faults.revokesLost, 'lost')
      }, signal),
    accepts: (text, signal) =>
      call(() => {
        fail(environment.faults.registryFails, 'registry')
        const row = byText.get(text)
        return row !== undefined && environment.isLive(row)
      }, signal),
  }
}

function mint(
  { rows, habits }: ModelEnvironment,
  byText: Map<string, Row>,
  time: VirtualTime,
  request: {
    organization: string
    description: string
    permanent: boolean
    by: string
    hidden: boolean
  },
): Row {
  const { organization, description, permanent, by, hidden } = request
  const same = rows.find(
    row => row.description === description && row.organization === organization,
  )
  if (habits.sameForSameDescription && same !== undefined) return same
  const number = byText.size + rows.length + time.now()
  const digest = createHash('sha256').update(`${number}/${description}`).digest('hex')
  const id = `${digest.slice(0, 12)}`
  const text = habits.jwt ? `h.${base64(JSON.stringify({ jti: id }))}.s` : `opaque-${digest}`
  const row: Row = {
    id,
    organization,
    description,
    text,
    permanent,
    by,
    mintedAt: time.now(),
    expiresAt: permanent ? Number.POSITIVE_INFINITY : time.now() + markLifeMs,
    revokedAt: Number.POSITIVE_INFINITY,
    hidden: hidden && permanent,
  }
  rows.push(row)
  byText.set(text, row)
  return row
}

function list({ rows, faults, habits }: ModelEnvironment, time: VirtualTime, organization: string) {
  const at = time.now() - faults.listLagMs
  return rows
    .filter(row => row.organization === organization && !row.hidden && row.mintedAt <= at)
    .filter(row => row.expiresAt > at)
    .map(({ id, description, text, expiresAt, revokedAt }) => ({
      id,
      description,
      text: habits.listTexts ? text : undefined,
      expiresAt: Number.isFinite(expiresAt) ? new Date(expiresAt) : undefined,
      revoked: revokedAt <= at,
      readOnly: true,
    }))
}

/** The request takes a while, then the answer; an answer to a process that ended never arrives. */
function createCall(time: VirtualTime, random: () => number): Call {
  const latency = () => (random() < 0.05 ? 200 + random() * 4000 : 5 + random() * 40)
  return (work, signal) =>
    new Promise((resolve, reject) => {
      const owner = time.owner()
      const abort = () => reject(failure('aborted'))
      if (signal.aborted) return abort()
      signal.addEventListener('abort', abort, { once: true })
      const answer = (give: () => void) =>
        time.after(
          latency(),
          () => {
            signal.removeEventListener('abort', abort)
            give()
          },
          owner,
        )
      time.after(latency(), () => {
        try {
          const result = work()
          answer(() => resolve(result))
        } catch (error) {
          answer(() => reject(error))
        }
      })
    })
}

function failure(code: string, sent = true): TokenError {
  return new TokenError(`the environment failed: ${code}`, {
    kind: 'transient',
    scope: 'organization',
    code,
    sent,
  })
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64url')
}

import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Namespace, V1Secret } from '@kubernetes/client-node'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { waitFor } from '../../sandbox/processes.ts'
import { type Controller, createController } from '../../src/controller/controller.ts'
import { createOrganizationsInUse } from '../../src/controller/organizations.ts'
import { createFailureStore } from '../../src/failure.ts'
import type { GuardedIssuer } from '../../src/issuer/guarded-issuer.ts'
import type { Inventory } from '../../src/issuer/inventory.ts'
import { type ListedToken, TokenError } from '../../src/issuer/issuer.ts'
import { createOrganizationTokens } from '../../src/issuer/organization-tokens.ts'
import { tokenHash } from '../../src/jwt.ts'
import { createPullSecretIndex, type PullSecretIndex } from '../../src/pull-secret/cache.ts'
import type { SecretStore } from '../../src/pull-secret/store.ts'

export const rules = { secretName: 'pullpass-registry', registryHost: 'registry.d.example.com' }

/** What the environment of the sandbox cannot do: opaque tokens, failures at a chosen moment. */
export interface Environment {
  tokens: ListedToken[]
  /** The organization of a token, by its id; absent: every one. */
  homes: Map<string, string>
  /** Every organization that was asked for anything. */
  asked: Set<string>
  mints: number
  lists: number
  canList: boolean
  /** The text of a minted token does not contain its ID. */
  opaque: boolean
  /** Thrown for the next calls. */
  failList: (organization: string) => Error | undefined
  failMint: (organization: string) => Error | undefined
  failRevoke: (id: string) => Error | undefined
  revokes: number
  /** Tokens that the registry refuses though they are listed as live. */
  refused: Set<string>
  checks: number
  /** Milliseconds until the limit allows a mint. */
  mintsAvailableIn: () => number
  /** Nobody else acts under our identity. */
  alone: boolean
}

export function tokenError(code: string, scope: 'environment' | 'organization' = 'organization') {
  return new TokenError(code, { kind: 'transient', scope, code })
}

export interface Cluster {
  namespaces: Map<string, V1Namespace>
  secrets: Map<string, V1Secret>
  applies: number
  /** Applies over fields of others. */
  forced: number
  /** What another manager put on every Secret: an apply of ours does not remove it. */
  stranger: Record<string, string>
  /** Thrown instead of the next applies. */
  refuse: (namespace: string) => Error | undefined
  refuseDryRun: (namespace: string) => Error | undefined
  label(index: PullSecretIndex, name: string, value: string | undefined): void
  put(secret: V1Secret): V1Secret
}

interface Times {
  rotateAfterMs?: number
  rotateGraceMs?: number
  revokeGraceMs?: number
  verifyEveryMs?: number
  listEveryMs?: number
  resyncMs?: number
  organization?: string
  noted?: string
}

/** A controller that leads, with one opted-in namespace, `shop`, on an API server and environment in memory. */
export function setup(t: { teardown(end: () => Promise<void>): void }, times: Times = {}) {
  const environment = createEnvironment()
  const cluster = createCluster()
  const index = createPullSecretIndex(rules)
  let noted = times.noted
  const note = {
    read: async () => noted,
    write: async (text: string) => {
      noted = text
    },
  }
  const store = createFailureStore()
  const events: { namespace: string; reason: string; note: string }[] = []
  let shift = 0
  const now = () => new Date(Date.now() + shift)
  const organizations = {
    organization: times.organization ?? 'acme',
    namespaceOrganizations: {},
    selectableOrganizations: [],
  }
  const issuer = createIssuer(environment)
  const controller: Controller = createController(
    {
      index,
      store: createStore(cluster),
      leadership: {
        leading: () => true,
        onChange: () => {},
        annotate: () => {},
        onAnnotations: () => {},
      },
      problems: {
        store,
        report: async ({ namespace }, reason, note) => {
          events.push({ namespace, reason, note })
        },
      },
      environment: {
        issuer,
        inventory: createInventoryOf(issuer, index, now),
        organizationsInUse: createOrganizationsInUse(organizations, note),
        identity: {
          begin: () => {},
          onList: async () => {},
          alarm: () => undefined,
          mayRevoke: () => environment.alone,
          takeBack: async () => {},
        },
      },
      now,
      logger: pino({ level: process.env.LEVEL ?? 'silent' }),
      metrics: new Registry(),
    },
    {
      cluster: 'cluster-1',
      rules,
      organizations,
      concurrency: 4,
      rotateAfterMs: times.rotateAfterMs,
      rotateGraceMs: times.rotateGraceMs ?? 1000,
      revokeGraceMs: times.revokeGraceMs ?? 1000,
      verifyEveryMs: times.verifyEveryMs ?? 1e9,
      listEveryMs: times.listEveryMs ?? 50,
      listAgainMs: 20,
      resyncMs: times.resyncMs ?? 20,
    },
  )
  const label = (name: string) => cluster.label(index, name, 'enabled')
  label('shop')
  controller.start()
  t.teardown(() => controller.stop())
  const live = () => environment.tokens.filter(({ revoked }) => !revoked).map(({ id }) => id)
  const secret = (name = 'shop') => index.secrets.get(name)
  return {
    environment,
    cluster,
    index,
    controller,
    live,
    secret,
    events,
    /** What concerns more than one namespace. */
    problems: () =>
      store.all('environment', 'organization', 'cluster').map(({ message }) => message),
    /** The id of the token in the Secret. */
    held: (name = 'shop') => idOf(secret(name)?.token?.hash, environment),
    noted: () => noted,
    now,
    label,
    unlabel: (name: string) => cluster.label(index, name, undefined),
    /** As another writes it. */
    put: (secret: V1Secret) => index.secrets.upsert(cluster.put(secret)),
    remove: (name: string) => {
      const found = cluster.secrets.get(name)
      cluster.secrets.delete(name)
      if (found !== undefined) index.secrets.remove(found)
    },
    advance: (ms: number) => {
      shift += ms
    },
    until: (holds: () => boolean, what: string) => waitFor(holds, { withinMs: 5000, what }),
    /** Waits for three more lists. */
    lists: async () => {
      const before = environment.lists
      await waitFor(() => environment.lists >= before + 4, { withinMs: 5000, what: 'lists' })
    },
  }
}

function idOf(hash: string | undefined, { tokens }: Environment): string | undefined {
  return tokens.find(({ text }) => text !== undefined && tokenHash(text) === hash)?.id
}

function createEnvironment(): Environment {
  return {
    tokens: [],
    homes: new Map(),
    asked: new Set(),
    mints: 0,
    lists: 0,
    canList: true,
    opaque: false,
    failList: () => undefined,
    failMint: () => undefined,
    failRevoke: () => undefined,
    revokes: 0,
    refused: new Set(),
    checks: 0,
    mintsAvailableIn: () => 0,
    alone: true,
  }
}

function createIssuer(environment: Environment): GuardedIssuer {
  const isIn = (organization: string) => (token: ListedToken) =>
    (environment.homes.get(token.id) ?? organization) === organization
  return {
    start: () => {},
    close: async () => {},
    problem: () => undefined,
    onCredentialChange: () => {},
    mintsAvailableIn: () => environment.mintsAvailableIn(),
    mint: async ({ organization, description }) => {
      environment.asked.add(organization)
      const failure = environment.failMint(organization)
      const id = `token-${environment.mints + 1}`
      const text = environment.opaque ? `text-of-${id}` : jwt(id)
      const row = { id, description, text, expiresAt: undefined, revoked: false, readOnly: true }
      if (failure === undefined || failure.message === 'lost') {
        environment.mints += 1
        environment.tokens.push(row)
        environment.homes.set(id, organization)
      }
      if (failure !== undefined) throw failure
      return { text, id: environment.opaque ? undefined : id, expiresAt: undefined }
    },
    list: async (organization, row) => {
      environment.asked.add(organization)
      environment.lists += 1
      const failure = environment.failList(organization)
      if (failure !== undefined) throw failure
      if (!environment.canList) return 'unsupported'
      for (const token of environment.tokens.filter(isIn(organization))) row({ ...token })
      return 'complete'
    },
    text: async (organization, id) => {
      const token = environment.tokens.filter(isIn(organization)).find(each => each.id === id)
      return token === undefined || token.revoked ? 'gone' : token.text
    },
    revoke: async (organization, id) => {
      environment.asked.add(organization)
      environment.revokes += 1
      const failure = environment.failRevoke(id)
      if (failure !== undefined) throw failure
      for (const token of environment.tokens) if (token.id === id) token.revoked = true
    },
    accepts: async text => {
      environment.checks += 1
      const token = environment.tokens.find(each => each.text === text)
      return token !== undefined && !token.revoked && !environment.refused.has(token.id)
    },
  }
}

export function jwt(jti: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ alg: 'HS256' })}.${part({ jti })}.c2ln`
}

/** The inventory without the pause of five seconds between two lists. */
function createInventoryOf(
  issuer: GuardedIssuer,
  index: PullSecretIndex,
  now: () => Date,
): Inventory {
  const listeners: ((organization: string) => void)[] = []
  let all = new Map<string, ReturnType<typeof create>>()
  const create = (organization: string) => ({
    tokens: createOrganizationTokens({ now }, { organization, cluster: 'cluster-1' }),
    failed: 0,
    listedAt: undefined as Date | undefined,
    unsupported: false,
  })
  const of = (name: string) => {
    const found = all.get(name) ?? create(name)
    all.set(name, found)
    return found
  }
  return {
    begin: () => {
      all = new Map()
    },
    organization: name => {
      const { tokens, failed, listedAt, unsupported } = of(name)
      return { ...tokens, lists: tokens.lists(), failed, listedAt, unsupported }
    },
    refresh: async (name, signal) => {
      await sleep(5)
      if (signal.aborted) throw tokenError('aborted')
      const organization = of(name)
      const tokens = [...index.secrets.keys()].map(each => index.secrets.get(each)?.token)
      const hashes = new Set(tokens.flatMap(token => token?.hash ?? []))
      const reading = organization.tokens.read({ hashes, ids: new Set() }, now())
      try {
        const listed = await issuer.list(name, reading.row, signal)
        organization.failed = 0
        organization.unsupported = listed === 'unsupported'
        if (listed === 'unsupported') return organization.tokens.unsupported()
        reading.complete()
        organization.listedAt = now()
      } catch (error) {
        organization.failed += 1
        throw error
      }
      for (const listener of listeners) listener(name)
    },
    onList: listener => void listeners.push(listener),
    minted: (name, description, token) =>
      of(name).tokens.minted(description, token, tokenHash(token.text)),
    revoked: (name, id) => of(name).tokens.revoked(id),
  }
}

function createCluster(): Cluster {
  let version = 10
  const cluster: Cluster = {
    namespaces: new Map(),
    secrets: new Map(),
    applies: 0,
    forced: 0,
    stranger: {},
    refuse: () => undefined,
    refuseDryRun: () => undefined,
    label: (index, name, value) => {
      const labels = value === undefined ? {} : { 'pullpass.io/inject': value }
      const uid = cluster.namespaces.get(name)?.metadata?.uid ?? `uid-of-${name}`
      const metadata = { name, uid, resourceVersion: String(++version), labels }
      cluster.namespaces.set(name, { metadata })
      index.namespaces.upsert({ metadata })
    },
    put: secret => {
      const metadata = { ...secret.metadata, uid: 's', resourceVersion: String(++version) }
      const written = { ...secret, metadata }
      cluster.secrets.set(metadata.namespace ?? '', written)
      return written
    },
  }
  return cluster
}

function createStore(cluster: Cluster): SecretStore {
  return {
    readNamespace: async name => cluster.namespaces.get(name),
    read: async namespace => cluster.secrets.get(namespace),
    apply: async (secret, over) => {
      cluster.applies += 1
      if (over?.ours) cluster.forced += 1
      const { metadata } = secret
      const failure = cluster.refuse(metadata?.namespace ?? '')
      if (failure !== undefined) throw failure
      const annotations = { ...cluster.stranger, ...metadata?.annotations }
      return cluster.put({ ...secret, metadata: { ...metadata, annotations } })
    },
    check: async secret => {
      const failure = cluster.refuseDryRun(secret.metadata?.namespace ?? '')
      if (failure !== undefined) throw failure
    },
    remove: async ({ namespace }) => {
      cluster.secrets.delete(namespace)
    },
  }
}

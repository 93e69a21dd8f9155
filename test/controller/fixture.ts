import type { V1Namespace, V1Secret } from '@kubernetes/client-node'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { waitFor } from '../../sandbox/processes.ts'
import { type Controller, createController } from '../../src/controller/controller.ts'
import type { ListedToken, TokenIssuer } from '../../src/issuer/issuer.ts'
import { createPullSecretIndex } from '../../src/pull-secret/cache.ts'
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
}

export interface Cluster {
  secrets: Map<string, V1Secret>
  applies: number
  /** What another manager put on every Secret: an apply of ours does not remove it. */
  stranger: Record<string, string>
  /** Thrown instead of the next applies. */
  refuse: (namespace: string) => Error | undefined
  refuseDryRun: (namespace: string) => Error | undefined
}

/** A controller that leads, with one opted-in namespace, `shop`, on an API server and environment in memory. */
export function setup(
  t: { teardown(end: () => Promise<void>): void },
  times: { rotateAfterMs?: number; organization?: string; noted?: string } = {},
) {
  const environment: Environment = {
    tokens: [],
    homes: new Map(),
    asked: new Set(),
    mints: 0,
    lists: 0,
    canList: true,
    opaque: false,
  }
  const cluster: Cluster = {
    secrets: new Map(),
    applies: 0,
    stranger: {},
    refuse: () => undefined,
    refuseDryRun: () => undefined,
  }
  const index = createPullSecretIndex(rules)
  const shop: V1Namespace = {
    metadata: {
      name: 'shop',
      uid: 'u',
      resourceVersion: '1',
      labels: { 'pullpass.io/inject': 'enabled' },
    },
  }
  let noted = times.noted
  const note = {
    read: async () => noted,
    write: async (text: string) => {
      noted = text
    },
  }
  let shift = 0
  const controller: Controller = createController({
    index,
    store: createStore(cluster, shop),
    issuer: createIssuer(environment),
    leadership: { leading: () => true, onChange: () => {} },
    cluster: 'cluster-1',
    rules,
    organizations: {
      organization: times.organization ?? 'acme',
      namespaceOrganizations: {},
      selectableOrganizations: [],
    },
    concurrency: 4,
    rotateAfterMs: times.rotateAfterMs,
    rotateGraceMs: 1000,
    revokeGraceMs: 1000,
    verifyEveryMs: 1e9,
    resyncMs: 20,
    sweepMs: 50,
    now: () => new Date(Date.now() + shift),
    reportProblem: async () => {},
    organizationsAnnotation: note,
    logger: pino({ level: 'silent' }),
    metrics: new Registry(),
  })
  index.namespaces.upsert(shop)
  controller.start()
  t.teardown(() => controller.stop())
  const live = () => environment.tokens.filter(({ revoked }) => !revoked).map(({ id }) => id)
  const secret = () => index.secrets.get('shop')
  return {
    environment,
    cluster,
    index,
    controller,
    live,
    secret,
    noted: () => noted,
    label: (name: string) => {
      index.namespaces.upsert({ metadata: { ...shop.metadata, name } })
    },
    advance: (ms: number) => {
      shift += ms
    },
    until: (holds: () => boolean, what: string) => waitFor(holds, { withinMs: 5000, what }),
    /** Waits for three more lists of all tokens. */
    sweeps: async () => {
      const before = environment.lists
      await waitFor(() => environment.lists >= before + 3, { withinMs: 5000, what: 'sweeps' })
    },
  }
}

function createIssuer(environment: Environment): TokenIssuer {
  return {
    mint: async (organization, description) => {
      environment.asked.add(organization)
      const id = `token-${++environment.mints}`
      const text = `text-of-${id}`
      const row = { id, description, text, expiresAt: undefined, revoked: false, readOnly: true }
      environment.tokens.push(row)
      environment.homes.set(id, organization)
      return { text, id: environment.opaque ? undefined : id, expiresAt: undefined }
    },
    list: async organization => {
      environment.asked.add(organization)
      environment.lists += 1
      const isThere = ({ id }: ListedToken) =>
        (environment.homes.get(id) ?? organization) === organization
      return environment.canList
        ? environment.tokens.filter(isThere).map(token => ({ ...token }))
        : 'unsupported'
    },
    revoke: async (organization, id) => {
      environment.asked.add(organization)
      for (const token of environment.tokens) if (token.id === id) token.revoked = true
    },
    accepts: async () => true,
  }
}

function createStore(cluster: Cluster, shop: V1Namespace): SecretStore {
  let version = 10
  return {
    readNamespace: async () => shop,
    read: async namespace => cluster.secrets.get(namespace),
    apply: async secret => {
      cluster.applies += 1
      const { metadata } = secret
      const failure = cluster.refuse(metadata?.namespace ?? '')
      if (failure !== undefined) throw failure
      const annotations = { ...cluster.stranger, ...metadata?.annotations }
      const resourceVersion = String(++version)
      const written = {
        ...secret,
        metadata: { ...metadata, annotations, uid: 's', resourceVersion },
      }
      cluster.secrets.set(metadata?.namespace ?? '', written)
      return written
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

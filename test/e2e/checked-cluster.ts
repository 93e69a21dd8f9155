import type { V1Namespace, V1Secret } from '@kubernetes/client-node'
import type { Test } from 'tap'
import type { LiveToken } from '../../sandbox/bluemix/ledger.ts'
import { waitFor } from '../../sandbox/processes.ts'
import type { Replicas } from '../../sandbox/replicas.ts'
import { reachEnvironment } from '../sandbox/bluemix-caller.ts'
import { type Cluster, reachCluster } from './cluster.ts'

/** A cluster with checks of a namespace: its live tokens in the environment, and its Secret. */
export interface CheckedCluster extends Cluster {
  /** The reason if the namespace does not have exactly one live token, in its Secret; else undefined. */
  wrong(namespace: string): Promise<string | undefined>
  /** What is left of a namespace that should have neither Secret nor token; else undefined. */
  left(namespace: string): Promise<string | undefined>
  /**
   * Resolves when nothing is wrong (or left); rejects with the last reason, by default after 75 s:
   * two lists and the mark of a new leader take that long.
   */
  whenRight(namespace: string, withinMs?: number): Promise<void>
  whenNothingIsLeft(namespace: string, withinMs?: number): Promise<void>
  liveTokens(namespace: string): LiveToken[]
  /** Changes the description of a token, which contains its age. */
  describeToken(id: string, description: string): void
  mints(namespace: string): number
}

export async function reachCheckedCluster(t: Test, replicas: Replicas): Promise<CheckedCluster> {
  const { controlPlane, environment } = replicas
  const cluster = reachCluster(controlPlane, () => {})
  t.teardown(() => cluster.close())
  const { ledger, hosts } = environment
  const { body } = await cluster.ask<V1Namespace>('GET', '/api/v1/namespaces/kube-system')
  const isOf = (namespace: string) => (token: { description: string }) =>
    token.description.startsWith(`pullpass/${body.metadata?.uid}/${namespace}/`)
  const liveTokens = (namespace: string) => ledger.liveTokens().filter(isOf(namespace))
  const wrong = async (namespace: string) => {
    const [token, ...more] = liveTokens(namespace)
    if (token === undefined) return 'no live token'
    if (more.length > 0) return `${more.length + 1} live tokens`
    return wrongSecret(await cluster.secret(namespace), token, hosts.registry)
  }
  const left = async (namespace: string) => {
    const { length } = liveTokens(namespace)
    if (length > 0) return `${length} live tokens`
    return (await cluster.secret(namespace)) === undefined ? undefined : 'its Secret'
  }
  return {
    ...cluster,
    liveTokens,
    wrong,
    left,
    describeToken: environment.describeToken,
    mints: namespace => ledger.mints().filter(isOf(namespace)).length,
    whenRight: (namespace, withinMs) => untilGone(() => wrong(namespace), namespace, withinMs),
    whenNothingIsLeft: (namespace, withinMs) =>
      untilGone(() => left(namespace), namespace, withinMs),
  }
}

/** Creates tokens and a Secret that pullpass does not manage; the result lists what was changed of them. */
export async function plantForeign(
  t: Test,
  { environment }: Replicas,
  cluster: CheckedCluster,
): Promise<() => Promise<string[]>> {
  const { ledger } = environment
  const caller = reachEnvironment(t, environment)
  const names = ['my laptop', 'pullpass/another-cluster/shop', 'pullpass', '']
  for (const name of names) {
    await caller.mint(`?permanent=true&description=${encodeURIComponent(name)}`)
  }
  const planted = ledger.liveTokens().filter(({ description }) => names.includes(description))
  await cluster.namespace('foreign', {})
  await cluster.ask('POST', '/api/v1/namespaces/foreign/secrets', {
    metadata: { name: 'pullpass-registry' },
    stringData: { mine: 'left alone' },
  })
  const before = await cluster.secret('foreign')
  await cluster.label('foreign', 'enabled')
  return async () => {
    const live = new Set(ledger.liveTokens().map(({ id }) => id))
    const lost = planted.filter(({ id }) => !live.has(id))
    const after = await cluster.secret('foreign')
    const touched = after?.metadata?.resourceVersion !== before?.metadata?.resourceVersion
    return [
      ...lost.map(({ description }) => `the token "${description}" was revoked`),
      ...(touched ? ['the foreign Secret was touched'] : []),
    ]
  }
}

function wrongSecret(
  secret: V1Secret | undefined,
  { id, text }: { id: string; text: string },
  registry: string,
): string | undefined {
  if (secret === undefined) return 'no Secret'
  if (passwordIn(secret, registry) !== text) return 'the Secret holds another token'
  const note = secret.metadata?.annotations ?? {}
  if (note['pullpass.io/token-id'] !== id) return 'the Secret names another token'
  return note['pullpass.io/previous-token-id'] && 'a previous token is noted'
}

function passwordIn(secret: V1Secret, registry: string): string | undefined {
  const text = Buffer.from(secret.data?.['.dockerconfigjson'] ?? '', 'base64').toString()
  return JSON.parse(text).auths?.[registry]?.password
}

async function untilGone(
  trouble: () => Promise<string | undefined>,
  namespace: string,
  withinMs = 75_000,
): Promise<void> {
  let last: string | undefined
  const look = async () => {
    last = await trouble()
    return last === undefined
  }
  await waitFor(look, { withinMs, what: `${namespace} to be right` }).catch(() => {
    throw new Error(`${namespace}: ${last}`)
  })
}

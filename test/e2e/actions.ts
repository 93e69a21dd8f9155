import { waitFor } from '../../sandbox/processes.ts'
import type { CheckedCluster } from './checked-cluster.ts'

/** An action of pullpass for a namespace. */
export interface Action {
  name: string
  /** Prepares the namespace. */
  prepare(namespace: string): Promise<void>
  /** Called when a leader exists, right before `begin`. */
  ready?(): Promise<void>
  /** Makes the action necessary. */
  begin(namespace: string): Promise<void>
  /** Resolves when the action is complete and the result is correct; rejects with what is wrong. */
  whenDone(namespace: string): Promise<void>
}

/** Settings with which an action starts as soon as it is necessary. */
export const actionSettings = {
  leader: { leaseSeconds: 3, renewSeconds: 1 },
  controller: {
    concurrency: 64,
    mintsPerMinute: 6000,
    rotateAfterSeconds: 86_400,
    rotateGraceSeconds: 0,
    revokeGraceSeconds: 0,
  },
  bluemix: { timeoutMs: 120_000 },
  kubernetes: { timeoutMs: 120_000 },
}

export function createActions(cluster: CheckedCluster): Action[] {
  const holding = async (namespace: string) => {
    await cluster.namespace(namespace)
    await cluster.whenRight(namespace)
  }
  return [
    {
      name: 'mint',
      prepare: async () => {},
      begin: cluster.namespace,
      whenDone: cluster.whenRight,
    },
    rotation(cluster, holding),
    deletion(cluster, holding),
    {
      name: 'revoke: namespace unlabelled',
      prepare: holding,
      begin: namespace => cluster.label(namespace, null),
      whenDone: cluster.whenNothingIsLeft,
    },
  ]
}

/** Simulates an old token: its description contains an earlier time. */
function rotation(cluster: CheckedCluster, prepare: Action['prepare']): Action {
  const former = new Map<string, string | undefined>()
  const holds = (namespace: string) => cluster.liveTokens(namespace)[0]?.id
  const old = Date.parse('2020-01-01T00:00:00Z') / 1000
  return {
    name: 'rotate',
    prepare,
    begin: async namespace => {
      former.set(namespace, holds(namespace))
      for (const { id, description } of cluster.liveTokens(namespace)) {
        cluster.describeToken(id, description.replace(/\d+$/, `${old}`))
      }
    },
    whenDone: async namespace => {
      await waitFor(() => holds(namespace) !== former.get(namespace), {
        withinMs: 90_000,
        what: `the token of ${namespace} to be another`,
      })
      await cluster.whenRight(namespace)
    },
  }
}

/** A finalizer keeps the namespace terminating until the check, so that timing does not matter. */
function deletion(cluster: CheckedCluster, prepare: Action['prepare']): Action {
  const hold = async (namespace: string, finalizers: string[]) => {
    await cluster.ask('PATCH', `/api/v1/namespaces/${namespace}`, { metadata: { finalizers } })
  }
  return {
    name: 'revoke: namespace deleted',
    prepare: async namespace => {
      await prepare(namespace)
      await hold(namespace, ['example.com/hold'])
    },
    begin: async namespace => {
      await cluster.ask('DELETE', `/api/v1/namespaces/${namespace}`)
    },
    whenDone: async namespace => {
      await cluster.whenNothingIsLeft(namespace)
      await hold(namespace, [])
    },
  }
}

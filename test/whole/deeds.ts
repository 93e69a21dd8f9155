import { waitFor } from '../../sandbox/processes.ts'
import type { Estate } from './estate.ts'

/** Something that pullpass does for a namespace, step by step. */
export interface Deed {
  name: string
  /** Brings the namespace to where the deed can begin. */
  prepare(namespace: string): Promise<void>
  /** Called when a leader is there, right before the beginning. */
  ready?(): Promise<void>
  /** Makes it necessary. */
  begin(namespace: string): Promise<void>
  /** Resolves when it is done, and what should be is; rejects with what is not. */
  whenDone(namespace: string): Promise<void>
}

/** The settings with which nothing but its own beginning makes a deed wait. */
export const deedSettings = {
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

export function createDeeds(estate: Estate): Deed[] {
  const holding = async (namespace: string) => {
    await estate.namespace(namespace)
    await estate.whenRight(namespace)
  }
  return [
    {
      name: 'mint',
      prepare: async () => {},
      begin: estate.namespace,
      whenDone: estate.whenRight,
    },
    rotation(estate, holding),
    deletion(estate, holding),
    {
      name: 'revoke: namespace un-labelled',
      prepare: holding,
      begin: namespace => estate.label(namespace, null),
      whenDone: estate.whenNothingIsLeft,
    },
  ]
}

/** Plays the passing of time: the Secret says that its token is older than it is. */
function rotation(estate: Estate, prepare: Deed['prepare']): Deed {
  const former = new Map<string, string | undefined>()
  const holds = (namespace: string) => estate.liveTokens(namespace)[0]?.id
  return {
    name: 'rotate',
    prepare,
    begin: async namespace => {
      former.set(namespace, holds(namespace))
      const annotations = { 'pullpass.io/minted-at': '2020-01-01T00:00:00.000Z' }
      const path = `/api/v1/namespaces/${namespace}/secrets/pullpass-registry`
      await estate.ask('PATCH', path, { metadata: { annotations } })
    },
    whenDone: async namespace => {
      await waitFor(() => holds(namespace) !== former.get(namespace), {
        withinMs: 30_000,
        what: `the token of ${namespace} to be another`,
      })
      await estate.whenRight(namespace)
    },
  }
}

/** The namespace goes on ending until all is over, so that it makes no difference how quick it is. */
function deletion(estate: Estate, prepare: Deed['prepare']): Deed {
  const hold = async (namespace: string, finalizers: string[]) => {
    await estate.ask('PATCH', `/api/v1/namespaces/${namespace}`, { metadata: { finalizers } })
  }
  return {
    name: 'revoke: namespace deleted',
    prepare: async namespace => {
      await prepare(namespace)
      await hold(namespace, ['example.com/hold'])
    },
    begin: async namespace => {
      await estate.ask('DELETE', `/api/v1/namespaces/${namespace}`)
    },
    whenDone: async namespace => {
      await estate.whenNothingIsLeft(namespace)
      await hold(namespace, [])
    },
  }
}

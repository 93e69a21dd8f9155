import { waitFor } from './processes.ts'
import type { PullpassOptions } from './pullpass.ts'
import type { Replica } from './replicas/replica.ts'
import { startTestbed, type Testbed } from './testbed.ts'

export type { Replica } from './replicas/replica.ts'

/** Several pullpass processes beside one cluster and one environment, behind one address. */
export interface Replicas extends Pick<Testbed, 'controlPlane' | 'environment' | 'stop'> {
  readonly all: readonly Replica[]
  /** Waits until one of them is the leader; those given do not count. */
  whenLed(but?: readonly Replica[]): Promise<Replica>
}

export interface ReplicasOptions extends Pick<PullpassOptions, 'apiKey' | 'settings'> {
  count: number
  /** Additional environment variables, as the chart's Deployment sets them. */
  env?: Record<string, string>
  /** Each reaches the API server through a fault proxy of its own. */
  proxied?: boolean
  /** Each has a wall clock of its own, which can be set. */
  clocks?: boolean
}

/** Starts all of it from one bundle. Resolves when each is ready and the API server sends pods to them. */
export async function startReplicas(options: ReplicasOptions): Promise<Replicas> {
  const { controlPlane, environment, replicas, stop } = await startTestbed({
    registry: false,
    controllerManager: true,
    pullpass: {
      count: options.count,
      program: 'bundle',
      balanced: true,
      proxied: options.proxied ?? false,
      clocks: options.clocks ?? false,
      failurePolicy: 'Fail',
      apiKey: options.apiKey,
      settings: options.settings,
      launch: program => ({ ...program, env: { ...program.env, ...options.env } }),
    },
    progress: () => {},
  })
  return { controlPlane, environment, all: replicas, whenLed: but => whenLed(replicas, but), stop }
}

async function whenLed(all: readonly Replica[], but: readonly Replica[] = []): Promise<Replica> {
  let leader: Replica | undefined
  const look = async () => {
    const asked = all.filter(replica => !but.includes(replica))
    const leading = await Promise.all(asked.map(replica => replica.leads()))
    leader = asked.find((_, index) => leading[index])
    return leader !== undefined
  }
  await waitFor(look, { withinMs: 40_000, what: 'a replica to lead' })
  return leader as Replica
}

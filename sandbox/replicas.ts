import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { KubeConfig } from '@kubernetes/client-node'
import { bundle } from '../scripts/bundle.ts'
import { type BluemixEnvironment, startBluemixEnvironment } from './bluemix/environment.ts'
import { type ControlPlane, startControlPlane } from './control-plane.ts'
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts'
import { installBeside } from './install.ts'
import { startParts } from './parts.ts'
import { onFreePorts } from './ports.ts'
import { makeFolder, waitFor } from './processes.ts'
import { type PullpassOptions, startPullpass } from './pullpass.ts'
import { startBalancer } from './replicas/balancer.ts'
import { makeClock, type ProcessClock } from './replicas/clock.ts'
import { asReplica, type Replica } from './replicas/replica.ts'

export type { Replica } from './replicas/replica.ts'

/** Several pullpass processes beside one cluster and one environment, behind one address. */
export interface Replicas {
  readonly controlPlane: ControlPlane
  readonly environment: BluemixEnvironment
  readonly all: readonly Replica[]
  /** Waits until one of them leads; any but those given. */
  whenLed(but?: readonly Replica[]): Promise<Replica>
  stop(): Promise<void>
}

export interface ReplicasOptions extends Pick<PullpassOptions, 'apiKey' | 'env' | 'settings'> {
  count: number
  /** Each reaches the API server through a proxy of its own, which can fail. */
  proxied?: boolean
  /** Each has a wall clock of its own, which can be set. */
  clocks?: boolean
}

/**
 * Starts all of it, from one bundle as it is shipped, so that a restart is quick; resolves when each is
 * ready and the API server sends pods to the balancer.
 */
export async function startReplicas(options: ReplicasOptions): Promise<Replicas> {
  return startParts(async ({ begun, stop }) => {
    const folder = await makeFolder('bundle')
    await begun(Promise.resolve({ stop: folder.remove }))
    const program = join(folder.path, 'pullpass.js')
    await bundle(join(import.meta.dirname, '..', 'src', 'main.ts'), program)
    const environment = await begun(startBluemixEnvironment())
    const controlPlane = await begun(startControlPlane({ controllerManager: true }))
    const balancer = await begun(startBalancer())
    const webhookUrl = `https://127.0.0.1:${balancer.port}/mutate`
    const { domain } = environment
    await installBeside(controlPlane, { domain, webhookUrl, failurePolicy: 'Fail' })
    const all = await Promise.all(
      Array.from({ length: options.count }, async (_, index) => {
        const proxy = options.proxied ? await begun(startFaultProxy(controlPlane)) : undefined
        const clock = options.clocks ? await begun(makeClock()) : undefined
        const own = { name: `replica ${index + 1}`, proxy, clock }
        return begun(startReplica({ ...options, ...own, program, environment, controlPlane }))
      }),
    )
    balancer.leadTo(all)
    return { controlPlane, environment, all, whenLed: but => whenLed(all, but), stop }
  })
}

async function startReplica(
  options: ReplicasOptions & {
    program: string
    name: string
    environment: BluemixEnvironment
    controlPlane: ControlPlane
    proxy: FaultProxy | undefined
    clock: ProcessClock | undefined
  },
): Promise<Replica & { stop(): Promise<void> }> {
  const { name, proxy, clock } = options
  const folder = await makeFolder('replica')
  const kubeconfigFor = async (namespace: string, account: string) => {
    const direct = await options.controlPlane.kubeconfigFor(namespace, account)
    return proxy === undefined ? direct : through(proxy, direct, folder.path)
  }
  return onFreePorts(async (webhook, operations) => {
    const ports = { webhook, operations }
    const pullpass = await startPullpass({ ...options, controlPlane: { kubeconfigFor }, ports })
    try {
      await pullpass.whenReady()
    } catch (error) {
      await pullpass.stop()
      throw error
    }
    const replica = asReplica({ name, pullpass, proxy, clock, port: webhook })
    const stop = async () => {
      replica.resume()
      await pullpass.stop()
      await folder.remove()
    }
    return { ...replica, stop }
  })
}

async function through(proxy: FaultProxy, direct: string, folder: string): Promise<string> {
  const config = new KubeConfig()
  config.loadFromFile(direct)
  const file = join(folder, 'kubeconfig')
  await writeFile(file, proxy.kubeconfig(config))
  return file
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

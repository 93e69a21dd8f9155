import { join } from 'node:path'
import { bundle } from '../scripts/bundle.ts'
import { type BluemixEnvironment, startBluemixEnvironment } from './bluemix/environment.ts'
import { allStarted, type Components, startComponents } from './components.ts'
import { type ControlPlane, startControlPlane } from './control-plane.ts'
import { startFaultProxy } from './fault-proxy.ts'
import { installBeside } from './install.ts'
import { onFreePorts } from './ports.ts'
import type { PullpassOptions } from './pullpass.ts'
import { type Registry, startRegistry } from './registry.ts'
import { startBalancer } from './replicas/balancer.ts'
import { makeClock } from './replicas/clock.ts'
import { type Replica, startReplica } from './replicas/replica.ts'

/** What `startTestbed` started. The registry is there if it was asked for. */
export interface Testbed<HasRegistry extends boolean = boolean> {
  readonly environment: BluemixEnvironment
  readonly controlPlane: ControlPlane
  readonly registry: HasRegistry extends true ? Registry : undefined
  /** The pullpass processes, as many as were asked for. All are ready. */
  readonly replicas: readonly Replica[]
  /** Stops everything in reverse order and removes every file. */
  stop(): Promise<void>
}

export interface TestbedOptions<HasRegistry extends boolean = boolean> {
  /** A real registry behind the one of the Bluemix environment. */
  registry: HasRegistry
  controllerManager: boolean
  /** pullpass processes beside the cluster; undefined: none, and nothing of the chart is installed. */
  pullpass: TestbedPullpass | undefined
  /** Called before each part is started, with its name. */
  progress: (component: string) => void
}

export interface TestbedPullpass
  extends Required<Pick<PullpassOptions, 'apiKey' | 'settings' | 'launch'>> {
  count: number
  /** The source, or the one file that is shipped: it starts faster. */
  program: 'source' | 'bundle'
  /**
   * The API server sends pods to a balancer, which does what a Service does. If false, it sends them
   * to the process; there must be only one.
   */
  balanced: boolean
  /** Each process reaches the API server through a fault proxy of its own. */
  proxied: boolean
  /** Each process has a wall clock of its own, which can be set. */
  clocks: boolean
  failurePolicy: 'Ignore' | 'Fail'
}

/** The parts that pullpass processes need. */
interface Site extends Pick<Testbed, 'environment' | 'controlPlane'> {
  components: Components
  progress: TestbedOptions['progress']
}

/**
 * Starts a Bluemix Dedicated environment, a control plane, and what else is asked for. Resolves when
 * all pullpass processes are ready and the webhook configuration names them. If a part fails to
 * start, everything that was started before it is stopped, in reverse order.
 */
export async function startTestbed<HasRegistry extends boolean>(
  options: TestbedOptions<HasRegistry>,
): Promise<Testbed<HasRegistry>> {
  const { controllerManager, pullpass, progress } = options
  return startComponents(async components => {
    progress('the Bluemix Dedicated environment')
    const environment = await components.begun(startBluemixEnvironment())
    if (options.registry) progress('its registry')
    const registry = options.registry ? await startRegistryOf(environment, components) : undefined
    const programs = ['etcd', 'kube-apiserver', ...(controllerManager ? [MANAGER] : [])]
    progress(`a Kubernetes control plane: ${programs.join(', ')}`)
    const controlPlane = await components.begun(startControlPlane({ controllerManager }))
    const site = { environment, controlPlane, components, progress }
    const replicas = pullpass === undefined ? [] : await startReplicasAt(site, pullpass)
    return {
      ...{ environment, controlPlane, replicas, stop: components.stop },
      registry: registry as Testbed<HasRegistry>['registry'],
    }
  })
}

/** The only pullpass process of a testbed that was started with one. */
export function onlyReplica({ replicas }: Pick<Testbed, 'replicas'>): Replica {
  const [replica, ...others] = replicas
  if (replica === undefined || others.length > 0) {
    throw new Error(`one pullpass process expected, there are ${replicas.length}`)
  }
  return replica
}

const MANAGER = 'kube-controller-manager'

async function startRegistryOf(
  environment: BluemixEnvironment,
  components: Components,
): Promise<Registry> {
  const registry = await components.begun(startRegistry(environment.registryAuth))
  environment.setRegistryUpstream(registry.url)
  return registry
}

async function startReplicasAt(site: Site, options: TestbedPullpass): Promise<Replica[]> {
  const { components, progress } = site
  const program = options.program === 'bundle' ? await makeBundle(site) : undefined
  if (options.balanced) progress('a balancer')
  const balancer = options.balanced ? await components.begun(startBalancer()) : undefined
  if (balancer !== undefined) await install(site, balancer.port, options)
  const replicas = await allStarted(
    Array.from({ length: options.count }, (_, index) =>
      startReplicaAt(site, options, { program, name: `replica ${index + 1}` }),
    ),
  )
  balancer?.leadTo(replicas)
  return replicas
}

async function makeBundle({ components, progress }: Site): Promise<string> {
  progress('a bundle of pullpass')
  const program = join(await components.folder('bundle'), 'pullpass.mjs')
  await bundle(join(import.meta.dirname, '..', 'src', 'main.ts'), program)
  return program
}

async function install(
  { controlPlane, environment, progress }: Site,
  port: number,
  { failurePolicy }: TestbedPullpass,
): Promise<void> {
  progress('the webhook configuration and the rights of pullpass')
  const webhookUrl = `https://127.0.0.1:${port}/mutate`
  await installBeside(controlPlane, { domain: environment.domain, webhookUrl, failurePolicy })
}

async function startReplicaAt(
  site: Site,
  options: TestbedPullpass,
  { program, name }: { program: string | undefined; name: string },
): Promise<Replica> {
  const { controlPlane, environment, components, progress } = site
  const { apiKey, settings, launch } = options
  const proxy = options.proxied ? await components.begun(startFaultProxy(controlPlane)) : undefined
  const clock = options.clocks ? await components.begun(makeClock()) : undefined
  return components.begun(
    onFreePorts(async (webhook, operations) => {
      if (!options.balanced) await install(site, webhook, options)
      progress(options.count === 1 ? 'pullpass' : `pullpass, ${name}`)
      const ports = { webhook, operations }
      const place = { controlPlane, environment, proxy, clock, ports }
      return startReplica({ ...place, name, program, apiKey, settings, launch })
    }),
  )
}

import { join } from 'node:path'
import type { BluemixEnvironment } from '../../sandbox/bluemix/environment.ts'
import { allStarted, type Components, startComponents } from '../../sandbox/components.ts'
import type { ControlPlane } from '../../sandbox/control-plane.ts'
import { installBeside } from '../../sandbox/install.ts'
import { limitMemory } from '../../sandbox/memory-limit.ts'
import { onFreePorts } from '../../sandbox/ports.ts'
import { type Replica, startReplica } from '../../sandbox/replicas/replica.ts'
import { readShipped, type Shipped } from '../../sandbox/shipped.ts'
import { startTestbed } from '../../sandbox/testbed.ts'
import { bundle } from '../../scripts/bundle.ts'
import { type Cluster, reachCluster } from '../../test/e2e/cluster.ts'

/** Both are listed, each with half of the namespaces. */
export const organizations = ['acme', 'acme-shop'] as const

/** A cluster and an environment, with namespaces and without pullpass. */
export interface Site {
  environment: BluemixEnvironment
  cluster: Cluster
  /** Starts the shipped program twice, each process in the memory limit of the chart. */
  startReplicas(): Promise<Replica[]>
  stop(): Promise<void>
}

export interface SiteOptions {
  namespaces: number
  /** Tokens of others in the list of the first organization. */
  foreign: number
}

type Progress = (what: string) => void

export async function startSite(
  { namespaces, foreign }: SiteOptions,
  progress: Progress,
): Promise<Site> {
  return startComponents(async components => {
    const { environment, controlPlane } = await components.begun(
      startTestbed({
        registry: false,
        controllerManager: false,
        pullpass: undefined,
        progress: component => progress(`starting ${component}`),
      }),
    )
    environment.addTokens(
      organizations[0],
      Array.from({ length: foreign }, (_, index) => `pipeline ${index} of another team`),
    )
    // No pod is created, so nothing calls the webhook.
    const webhookUrl = 'https://127.0.0.1:9/mutate'
    const { domain } = environment
    await installBeside(controlPlane, { domain, webhookUrl, failurePolicy: 'Ignore' })
    const cluster = reachCluster(controlPlane, () => {})
    await components.begun(Promise.resolve({ stop: cluster.close }))
    progress('creating the namespaces')
    await createNamespaces(cluster, namespaces)
    const place = { environment, controlPlane, components }
    return {
      environment,
      cluster,
      startReplicas: () => startReplicas(place),
      stop: components.stop,
    }
  })
}

/** Creates an opted-in namespace; `index` decides its organization. */
export async function createNamespace(
  { ask }: Cluster,
  name: string,
  index: number,
): Promise<void> {
  const labels = { 'pullpass.io/inject': 'enabled' }
  const annotations = { 'pullpass.io/organization': organizations[index % 2] }
  const metadata = { name, labels, annotations }
  const { status, body } = await ask('POST', '/api/v1/namespaces', { metadata })
  if (status !== 201) throw new Error(`cannot create namespace ${name}: ${body.message}`)
}

const atOnce = 8

async function createNamespaces(cluster: Cluster, count: number): Promise<void> {
  let next = 0
  const work = async () => {
    while (next < count) {
      const index = next++
      await createNamespace(cluster, `bench-${index}`, index)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work))
}

interface Place {
  environment: BluemixEnvironment
  controlPlane: ControlPlane
  components: Components
}

async function startReplicas(place: Place): Promise<Replica[]> {
  const program = join(await place.components.folder('bundle'), 'pullpass.mjs')
  await bundle(join(import.meta.dirname, '..', '..', 'src', 'main.ts'), program)
  const shipped = await readShipped()
  return allStarted(
    ['replica 1', 'replica 2'].map(name => startOne(place, { name, program, shipped })),
  )
}

async function startOne(
  { environment, controlPlane, components }: Place,
  { name, program, shipped }: { name: string; program: string; shipped: Shipped },
): Promise<Replica> {
  const limit = await components.begun(limitMemory(shipped.memoryBytes))
  return components.begun(
    onFreePorts(async (webhook, operations) =>
      startReplica({
        name,
        program,
        environment,
        controlPlane,
        ports: { webhook, operations },
        proxy: undefined,
        clock: undefined,
        settings: {
          bluemix: {
            selectableOrganizations: [{ organization: organizations[1], namespaces: ['bench-*'] }],
          },
          // The interval of the lists is the default one; the sandbox has a shorter one.
          controller: { mintsPerMinute: 6000, listEverySeconds: 60 },
        },
        launch: started => limit.hold(shipped.launch(started)),
      }),
    ),
  )
}

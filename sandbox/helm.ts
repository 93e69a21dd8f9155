import type { V1Pod } from '@kubernetes/client-node'
import { type Components, startComponents } from './components.ts'
import type { ControlPlane } from './control-plane.ts'
import { createHelmCommand, type HelmVersion, type Said } from './helm/helm-command.ts'
import { buildImage } from './helm/image.ts'
import { podsOf, whenLed } from './helm/replicas.ts'
import { merged, ownValues, type Values } from './helm/values.ts'
import { kubectl, releaseNamespace } from './install.ts'
import { startClusterEgress } from './node/network/cluster-egress.ts'
import { type SandboxNode, startNode } from './node/node.ts'
import { startTestbed, type Testbed } from './testbed.ts'

export type { HelmVersion, Said } from './helm/helm-command.ts'
export type { Values } from './helm/values.ts'

/**
 * A cluster with a node for the release namespace, a Bluemix Dedicated environment with its
 * registry, and Helm. pullpass runs as the chart installs it.
 */
export interface HelmSandbox
  extends Pick<Testbed<true>, 'controlPlane' | 'environment' | 'registry'> {
  readonly node: SandboxNode
  /** The chart values that this sandbox needs, merged with `more` section by section. */
  values(more?: Values): Values
  /**
   * Runs helm in the release namespace. Resolves also if helm fails. `values` is passed as a file.
   */
  helm(args: string[], values?: Values): Promise<Said>
  /** Installs or upgrades the release `pullpass` with `values(more)` and waits. Rejects if helm fails. */
  install(more?: Values): Promise<string>
  upgrade(more?: Values): Promise<string>
  /** The pods of the Deployment, without those that are being deleted. */
  pods(): Promise<V1Pod[]>
  /** Waits until one of them is the leader; resolves with that pod. */
  whenLed(): Promise<V1Pod>
  stop(): Promise<void>
}

/** Starts everything except the release. */
export async function startHelmSandbox(options: {
  version: HelmVersion
  /** Called before each part is started, with its name. */
  progress?: (what: string) => void
}): Promise<HelmSandbox> {
  const { version, progress = () => {} } = options
  return startComponents(async components => {
    const { begun, stop } = components
    const testbed = await begun(
      startTestbed({
        registry: true,
        controllerManager: true,
        pullpass: undefined,
        progress: progress,
      }),
    )
    const { controlPlane, environment, registry } = testbed
    progress('a node for the pods of the release, and the network between it and the API server')
    const image = await begun(buildImage())
    const node = await startRealm(controlPlane, image.programs, components)
    const { apiKey } = environment
    await kubectl(controlPlane, ...createSecret, `--from-literal=api-key=${apiKey}`)
    const command = await begun(createHelmCommand(version, controlPlane.kubeconfigFile))
    const helm: HelmSandbox['helm'] = (args, values) =>
      command.run([...args, '--namespace', releaseNamespace], values)
    const values: HelmSandbox['values'] = more => merged(ownValues(environment, image.value), more)
    const pods = () => podsOf(controlPlane)
    return {
      ...{ controlPlane, environment, registry, node, values, helm, pods, stop },
      install: more => deploy(helm, 'install', values(more)),
      upgrade: more => deploy(helm, 'upgrade', values(more)),
      whenLed: () => whenLed(pods),
    }
  })
}

const createSecret = ['create', 'secret', 'generic', 'bluemix', '-n', releaseNamespace]

/** Creates the release namespace, and starts its node and the network to it. */
async function startRealm(
  controlPlane: ControlPlane,
  programs: Parameters<typeof startNode>[0]['programs'],
  { begun }: Components,
): Promise<SandboxNode> {
  const kubeConfig = controlPlane.kubeConfig()
  await kubectl(controlPlane, 'create', 'namespace', releaseNamespace)
  await begun(startClusterEgress({ kubeConfig, socket: controlPlane.egressSocket }))
  return begun(startNode({ kubeConfig, namespace: releaseNamespace, programs }))
}

async function deploy(
  helm: HelmSandbox['helm'],
  verb: 'install' | 'upgrade',
  values: Values,
): Promise<string> {
  const args = [verb, 'pullpass', 'charts/pullpass', '--wait', '--timeout', '90s']
  const { code, stdout, stderr } = await helm(args, values)
  if (code !== 0) throw new Error(`helm ${args.join(' ')}: ${stderr}`)
  return stdout
}

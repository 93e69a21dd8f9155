import type { V1Pod } from '@kubernetes/client-node'
import { startComponents } from './components.ts'
import { createHelmCommand, type HelmVersion, type Said } from './helm/helm-command.ts'
import { imageValue, pullpassImage } from './helm/image.ts'
import { podsOf, whenLed } from './helm/replicas.ts'
import { merged, ownValues, type Values } from './helm/values.ts'
import { kubectl, releaseNamespace } from './install.ts'
import { startNode } from './node/node.ts'
import { startTestbed, type Testbed } from './testbed.ts'

export type { HelmVersion, Said } from './helm/helm-command.ts'
export type { Values } from './helm/values.ts'

/**
 * A cluster with a real node, a Bluemix Dedicated environment with its registry, and Helm. pullpass
 * runs as the chart installs it.
 */
export interface HelmSandbox
  extends Pick<Testbed<true>, 'controlPlane' | 'environment' | 'registry'> {
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

/** Starts everything except the release. Needs what a real node needs; see node/node.ts. */
export async function startHelmSandbox(options: {
  version: HelmVersion
  /** Called before each part is started, with its name. */
  progress?: (what: string) => void
}): Promise<HelmSandbox> {
  const { version, progress = () => {} } = options
  return startComponents(async components => {
    const { begun, folder, stop } = components
    const testbed = await begun(
      startTestbed({
        registry: true,
        controllerManager: true,
        pullpass: undefined,
        progress: progress,
      }),
    )
    const { controlPlane, environment, registry } = testbed
    progress('a real node: kubelet, containerd, runc')
    const image = await pullpassImage(await folder('image'))
    const node = await begun(startNode({ controlPlane, environment }, [image]))
    const { apiKey } = environment
    await kubectl(controlPlane, 'create', 'namespace', releaseNamespace)
    await kubectl(controlPlane, ...createSecret, `--from-literal=api-key=${apiKey}`)
    const command = await begun(createHelmCommand(version, controlPlane.kubeconfigFile))
    const helm: HelmSandbox['helm'] = (args, values) =>
      command.run([...args, '--namespace', releaseNamespace], values)
    const own = ownValues(environment, node.gateway, imageValue)
    const values: HelmSandbox['values'] = more => merged(own, more)
    const pods = () => podsOf(controlPlane)
    return {
      ...{ controlPlane, environment, registry, values, helm, pods, stop },
      install: more => deploy(helm, 'install', values(more)),
      upgrade: more => deploy(helm, 'upgrade', values(more)),
      whenLed: () => whenLed(pods),
    }
  })
}

const createSecret = ['create', 'secret', 'generic', 'bluemix', '-n', releaseNamespace]

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

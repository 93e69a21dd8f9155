import { type BluemixEnvironment, startBluemixEnvironment } from './bluemix/environment.ts'
import { type ControlPlane, startControlPlane } from './control-plane.ts'
import { installBeside } from './install.ts'
import { startParts } from './parts.ts'
import { onFreePorts } from './ports.ts'
import { type Pullpass, type PullpassOptions, startPullpass } from './pullpass.ts'
import { type Registry, startRegistry } from './registry.ts'

/** A cluster, a Bluemix Dedicated environment with its registry, and a pullpass between them. */
export interface Sandbox {
  controlPlane: ControlPlane
  environment: BluemixEnvironment
  registry: Registry
  pullpass: Pullpass
  /** Ends everything; nothing is left. */
  stop(): Promise<void>
}

export interface SandboxOptions extends Pick<PullpassOptions, 'apiKey' | 'settings'> {
  failurePolicy?: 'Ignore' | 'Fail'
  /** Called before each part is started, for people who wait. */
  tell?: (what: string) => void
}

/** Starts all of it; resolves when pullpass is ready and the API server sends pods to it. */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const { tell = () => {}, failurePolicy = 'Fail' } = options
  return startParts(async ({ begun, stop }) => {
    tell('the Bluemix Dedicated environment and its registry')
    const environment = await begun(startBluemixEnvironment())
    const registry = await begun(startRegistry(environment.registryAuth))
    environment.setRegistryUpstream(registry.url)
    tell('a Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager')
    const controlPlane = await begun(startControlPlane({ controllerManager: true }))
    tell('pullpass')
    const pullpass = await begun(
      onFreePorts(async (webhook, operations) => {
        const webhookUrl = `https://127.0.0.1:${webhook}/mutate`
        await installBeside(controlPlane, { domain: environment.domain, webhookUrl, failurePolicy })
        const ports = { webhook, operations }
        return startPullpass({ ...options, controlPlane, environment, ports })
      }),
    )
    await pullpass.whenReady()
    return { controlPlane, environment, registry, pullpass, stop }
  })
}

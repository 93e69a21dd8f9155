import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { KubeConfig } from '@kubernetes/client-node'
import { startBluemixEnvironment } from '../../sandbox/bluemix/environment.ts'
import { startControlPlane } from '../../sandbox/control-plane.ts'
import { type FaultProxy, startFaultProxy } from '../../sandbox/fault-proxy.ts'
import { installBeside } from '../../sandbox/install.ts'
import { onFreePorts } from '../../sandbox/ports.ts'
import { makeFolder } from '../../sandbox/processes.ts'
import { type PullpassOptions, startPullpass } from '../../sandbox/pullpass.ts'
import type { Sandbox } from '../../sandbox/sandbox.ts'

/** A sandbox whose pullpass reaches the API server through a proxy that can fail; no registry. */
export interface ProxiedSandbox extends Omit<Sandbox, 'registry'> {
  proxy: FaultProxy
}

export async function startProxiedSandbox(
  options: Pick<PullpassOptions, 'apiKey' | 'settings'> = {},
): Promise<ProxiedSandbox> {
  const environment = await startBluemixEnvironment()
  const controlPlane = await startControlPlane({ controllerManager: true })
  const proxy = await startFaultProxy(controlPlane)
  const folder = await makeFolder('proxied')
  const kubeconfigFor = async (namespace: string, account: string) => {
    const direct = new KubeConfig()
    direct.loadFromFile(await controlPlane.kubeconfigFor(namespace, account))
    const file = join(folder.path, 'kubeconfig')
    await writeFile(file, proxy.kubeconfig(direct))
    return file
  }
  const pullpass = await onFreePorts(async (webhook, operations) => {
    const webhookUrl = `https://127.0.0.1:${webhook}/mutate`
    const { domain } = environment
    await installBeside(controlPlane, { domain, webhookUrl, failurePolicy: 'Fail' })
    const ports = { webhook, operations }
    return startPullpass({ ...options, controlPlane: { kubeconfigFor }, environment, ports })
  })
  return {
    environment,
    controlPlane,
    pullpass,
    proxy,
    stop: async () => {
      await pullpass.stop()
      await proxy.stop()
      await Promise.all([controlPlane.stop(), environment.stop(), folder.remove()])
    },
  }
}

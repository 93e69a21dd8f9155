import type { FaultProxy } from '../../sandbox/fault-proxy.ts'
import type { PullpassOptions } from '../../sandbox/pullpass.ts'
import type { Sandbox } from '../../sandbox/sandbox.ts'
import { onlyReplica, startTestbed } from '../../sandbox/testbed.ts'

/** A sandbox whose pullpass reaches the API server through a fault proxy; it has no registry. */
export interface ProxiedSandbox extends Omit<Sandbox, 'registry'> {
  proxy: FaultProxy
}

/** Starts all of it. Resolves when pullpass is ready and the webhook configuration names it. */
export async function startProxiedSandbox(
  options: Pick<PullpassOptions, 'apiKey' | 'settings'> = {},
): Promise<ProxiedSandbox> {
  const testbed = await startTestbed({
    registry: false,
    controllerManager: true,
    pullpass: {
      count: 1,
      program: 'source',
      balanced: false,
      proxied: true,
      clocks: false,
      failurePolicy: 'Fail',
      apiKey: options.apiKey,
      settings: options.settings,
      launch: undefined,
    },
    progress: () => {},
  })
  const { pullpass, proxy } = onlyReplica(testbed)
  const { controlPlane, environment, stop } = testbed
  return { controlPlane, environment, pullpass, proxy: proxy as FaultProxy, stop }
}

import type { Pullpass, PullpassOptions } from './pullpass.ts'
import { onlyReplica, startTestbed, type Testbed } from './testbed.ts'

/** A cluster, a Bluemix Dedicated environment with its registry, and a pullpass process. */
export interface Sandbox
  extends Pick<Testbed<true>, 'controlPlane' | 'environment' | 'registry' | 'stop'> {
  pullpass: Pullpass
}

export interface SandboxOptions extends Pick<PullpassOptions, 'apiKey' | 'settings'> {
  failurePolicy?: 'Ignore' | 'Fail'
  /** Called before each part is started, with its name. */
  progress?: (what: string) => void
}

/** Starts all of it. Resolves when pullpass is ready and the webhook configuration names it. */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const testbed = await startTestbed({
    registry: true,
    controllerManager: true,
    pullpass: {
      count: 1,
      program: 'source',
      balanced: false,
      proxied: false,
      clocks: false,
      failurePolicy: options.failurePolicy ?? 'Fail',
      apiKey: options.apiKey,
      settings: options.settings,
      launch: undefined,
    },
    progress: options.progress ?? (() => {}),
  })
  const { pullpass } = onlyReplica(testbed)
  const { controlPlane, environment, registry, stop } = testbed
  return { controlPlane, environment, registry, pullpass, stop }
}

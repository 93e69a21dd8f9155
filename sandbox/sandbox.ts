import { installBeside } from './install.ts'
import { startParts } from './parts.ts'
import { onFreePorts } from './ports.ts'
import { type Pullpass, type PullpassOptions, startPullpass } from './pullpass.ts'
import { type Surroundings, startSurroundings } from './surroundings.ts'

/** A cluster, a Bluemix Dedicated environment with its registry, and a pullpass between them. */
export interface Sandbox extends Surroundings {
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
  return startParts(async parts => {
    const surroundings = await startSurroundings(parts, tell)
    const { controlPlane, environment } = surroundings
    tell('pullpass')
    const pullpass = await parts.begun(
      onFreePorts(async (webhook, operations) => {
        const webhookUrl = `https://127.0.0.1:${webhook}/mutate`
        await installBeside(controlPlane, { domain: environment.domain, webhookUrl, failurePolicy })
        const ports = { webhook, operations }
        return startPullpass({ ...options, controlPlane, environment, ports })
      }),
    )
    await pullpass.whenReady()
    return { ...surroundings, pullpass, stop: parts.stop }
  })
}

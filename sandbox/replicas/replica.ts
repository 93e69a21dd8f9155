import { setTimeout as sleep } from 'node:timers/promises'
import type { FaultProxy } from '../fault-proxy.ts'
import type { Part } from '../parts.ts'
import { type Pullpass, type PullpassOptions, startPullpass } from '../pullpass.ts'
import type { Backend } from './balancer.ts'
import type { ProcessClock } from './clock.ts'

/** One of several pullpass processes. */
export interface Replica extends Backend {
  readonly name: string
  readonly pullpass: Pullpass
  /** Its way to the API server, where one was asked for. */
  readonly proxy: FaultProxy | undefined
  /** Its wall clock, where one was asked for. */
  readonly clock: ProcessClock | undefined
  /** Whether it says so; one that is dead or stands still says nothing. */
  leads(): Promise<boolean>
  /** Ends it at once, as a node that loses power; resolves when it has ended. */
  kill(): Promise<void>
  /** Lets it stand still, and go on. */
  pause(): void
  resume(): void
  /** Starts it again after its end; resolves when it is ready. */
  restart(): Promise<void>
}

/** Starts pullpass as one of several. Resolves when it is ready; if it does not become ready, it is stopped. */
export async function startReplica(
  options: PullpassOptions & {
    name: string
    proxy: FaultProxy | undefined
    clock: ProcessClock | undefined
  },
): Promise<Replica & Part> {
  const { name, proxy, clock, ports } = options
  const pullpass = await startPullpass(options)
  const replica = asReplica({ name, pullpass, proxy, clock, port: ports.webhook })
  const stop = async () => {
    replica.resume()
    await pullpass.stop()
  }
  try {
    await pullpass.whenReady()
  } catch (error) {
    await stop()
    throw error
  }
  return { ...replica, stop }
}

function asReplica(parts: {
  name: string
  pullpass: Pullpass
  proxy: FaultProxy | undefined
  clock: ProcessClock | undefined
  /** Of its webhook. */
  port: number
}): Replica {
  const { pullpass } = parts
  let paused = false
  const answers = () => pullpass.process().running() && !paused
  // It may come to stand still while it is asked.
  const leads = () => pullpass.metric('pullpass_leader').catch(() => 0)
  return {
    ...parts,
    isReady: async () => answers() && (await pullpass.readyz()).ready,
    leads: async () => answers() && (await Promise.race([leads(), sleep(2000, 0)])) === 1,
    kill: () => pullpass.process().stop(0),
    pause: () => {
      paused = true
      pullpass.process().signal('SIGSTOP')
    },
    resume: () => {
      paused = false
      pullpass.process().signal('SIGCONT')
    },
    restart: () => pullpass.restart(),
  }
}

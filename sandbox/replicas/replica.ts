import { setTimeout as sleep } from 'node:timers/promises'
import type { Component } from '../components.ts'
import type { FaultProxy } from '../fault-proxy.ts'
import { type Pullpass, type PullpassOptions, startPullpass } from '../pullpass.ts'
import type { Backend } from './balancer.ts'
import type { ProcessClock } from './clock.ts'

/** One of several pullpass processes. */
export interface Replica extends Backend {
  readonly name: string
  readonly pullpass: Pullpass
  /** Its fault proxy to the API server, if it has one. */
  readonly proxy: FaultProxy | undefined
  /** Its wall clock, if it has its own. */
  readonly clock: ProcessClock | undefined
  /** Whether it reports to be the leader; false if it has ended or is paused. */
  leads(): Promise<boolean>
  /** Kills it, as when a node loses power; resolves when it has ended. */
  kill(): Promise<void>
  /** Suspends the process, and continues it. */
  pause(): void
  resume(): void
  /** Starts it again after it has ended; resolves when it is ready. */
  restart(): Promise<void>
}

/** Resolves when the process is ready. If it does not become ready, it is stopped. */
export async function startReplica(
  options: PullpassOptions & {
    name: string
    proxy: FaultProxy | undefined
    clock: ProcessClock | undefined
  },
): Promise<Replica & Component> {
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

function asReplica(components: {
  name: string
  pullpass: Pullpass
  proxy: FaultProxy | undefined
  clock: ProcessClock | undefined
  /** The port of its webhook. */
  port: number
}): Replica {
  const { pullpass } = components
  let paused = false
  const answers = () => pullpass.process().running() && !paused
  // It can be paused during the request.
  const leads = () => pullpass.metric('pullpass_leader').catch(() => 0)
  return {
    ...components,
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

import { readdir, readFile } from 'node:fs/promises'
import type { V1Secret } from '@kubernetes/client-node'
import { startComponents } from '../../sandbox/components.ts'
import type { ControlPlane } from '../../sandbox/control-plane.ts'
import { releaseNamespace } from '../../sandbox/install.ts'
import { limitMemory, type MemoryLimit } from '../../sandbox/memory-limit.ts'
import type { Pullpass } from '../../sandbox/pullpass.ts'
import { readShipped } from '../../sandbox/shipped.ts'
import { onlyReplica, startTestbed } from '../../sandbox/testbed.ts'
import { type Cluster, reachCluster } from '../e2e/cluster.ts'
import { type HonestLoad, KNOWN, startHonestLoad } from './honest.ts'

/** One pullpass as shipped, with the memory limit of the chart, and the honest reviews that it answers. */
export interface Target {
  readonly pullpass: Pullpass
  /** Port of its webhook on 127.0.0.1. */
  readonly port: number
  readonly limit: MemoryLimit
  readonly controlPlane: ControlPlane
  readonly load: HonestLoad
  /** RSS of its process; 0 if it has ended. */
  rssMiB(): Promise<number>
  openFiles(): Promise<number>
  stop(): Promise<void>
}

/** Starts all of it; resolves when honest reviews are being sent. */
export async function startTarget(): Promise<Target> {
  return startComponents(async components => {
    const shipped = await readShipped()
    const limit = await components.begun(limitMemory(shipped.memoryBytes))
    const testbed = await components.begun(
      startTestbed({
        registry: false,
        controllerManager: false,
        pullpass: {
          count: 1,
          program: 'bundle',
          balanced: false,
          proxied: false,
          clocks: false,
          failurePolicy: 'Ignore',
          apiKey: undefined,
          settings: undefined,
          launch: program => limit.hold(shipped.launch(program)),
        },
        progress: () => {},
      }),
    )
    const { pullpass, port } = onlyReplica(testbed)
    const { controlPlane } = testbed
    const cluster = reachCluster(controlPlane, () => {})
    await components.begun(Promise.resolve({ stop: cluster.close }))
    for (const name of KNOWN) await cluster.namespace(name)
    for (const name of KNOWN) await cluster.whenSecret(name)
    const url = `https://127.0.0.1:${port}/mutate`
    const load = await components.begun(
      Promise.resolve(startHonestLoad(cluster, { url, ca: await readCa(cluster) })),
    )
    const processFolder = () => `/proc/${pullpass.process().pid}`
    return {
      ...{ pullpass, port, limit, controlPlane, load, stop: components.stop },
      rssMiB: async () => {
        const status = await readFile(`${processFolder()}/status`, 'utf8').catch(() => '')
        return Math.round(Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024)
      },
      openFiles: async () => (await readdir(`${processFolder()}/fd`).catch(() => [])).length,
    }
  })
}

/** The CA that the API server trusts. */
async function readCa(cluster: Cluster): Promise<string> {
  const path = `/api/v1/namespaces/${releaseNamespace}/secrets/pullpass-ca`
  const { body } = await cluster.ask<V1Secret>('GET', path)
  return Buffer.from(body.data?.['ca.crt'] ?? '', 'base64').toString()
}

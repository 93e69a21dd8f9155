import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { V1Secret } from '@kubernetes/client-node'
import { parse } from 'yaml'
import { startComponents } from '../../sandbox/components.ts'
import type { ControlPlane } from '../../sandbox/control-plane.ts'
import { releaseNamespace } from '../../sandbox/install.ts'
import { limitMemory, type MemoryLimit } from '../../sandbox/memory-limit.ts'
import type { Program } from '../../sandbox/processes.ts'
import type { Pullpass } from '../../sandbox/pullpass.ts'
import { onlyReplica, startTestbed } from '../../sandbox/testbed.ts'
import { type Cluster, reachCluster } from '../whole/cluster.ts'
import { type HonestLoad, KNOWN, startHonestLoad } from './honest.ts'

/** One pullpass as it is shipped, in the chart's memory limit, and the honest reviews that it answers. */
export interface Target {
  readonly pullpass: Pullpass
  /** Of its webhook, on 127.0.0.1. */
  readonly port: number
  readonly limit: MemoryLimit
  readonly controlPlane: ControlPlane
  readonly load: HonestLoad
  /** Of its process; 0 where it has ended. */
  rssMiB(): Promise<number>
  openFiles(): Promise<number>
  stop(): Promise<void>
}

const root = join(import.meta.dirname, '..', '..')

/** Starts all of it; resolves when honest reviews are being sent. */
export async function startTarget(): Promise<Target> {
  return startComponents(async components => {
    const memoryMiB = await readMemoryLimit()
    const limit = await components.begun(limitMemory(memoryMiB << 20))
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
          launch: await readLaunch(limit, memoryMiB),
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

/** As the chart's Deployment has it: the heap gets three quarters of the memory. */
async function readLaunch(limit: MemoryLimit, memoryMiB: number) {
  const NODE_OPTIONS = `--max-old-space-size=${Math.floor((memoryMiB * 3) / 4)}`
  const shipped = { ...(await readImageEnvironment()), NODE_OPTIONS }
  return (started: Program) => limit.hold({ ...started, env: { ...started.env, ...shipped } })
}

/** The chart's own, in MiB. */
async function readMemoryLimit(): Promise<number> {
  const values = parse(await readFile(join(root, 'charts/pullpass/values.yaml'), 'utf8'))
  const [, mebibytes] = /^(\d+)Mi$/.exec(values.resources.limits.memory) ?? []
  if (mebibytes === undefined) throw new Error('the memory limit of the chart is not in Mi')
  return Number(mebibytes)
}

/** What the last stage of the Dockerfile sets: a variable in each `ENV` line. */
async function readImageEnvironment(): Promise<Record<string, string>> {
  const stages = (await readFile(join(root, 'Dockerfile'), 'utf8')).split(/^FROM /m)
  const lines = stages.at(-1)?.matchAll(/^ENV (\w+)=(\S+)$/gm) ?? []
  return Object.fromEntries([...lines].map(([, name, value]) => [name, value]))
}

/** What the API server is given to trust. */
async function readCa(cluster: Cluster): Promise<string> {
  const path = `/api/v1/namespaces/${releaseNamespace}/secrets/pullpass-ca`
  const { body } = await cluster.ask<V1Secret>('GET', path)
  return Buffer.from(body.data?.['ca.crt'] ?? '', 'base64').toString()
}

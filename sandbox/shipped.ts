import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import type { Program } from './processes.ts'

/** How the chart and the image start pullpass. */
export interface Shipped {
  /** The memory limit of the chart. */
  readonly memoryBytes: number
  /** The program with the environment of the image and of the Deployment. */
  launch(program: Program): Program
}

const root = join(import.meta.dirname, '..')

export async function readShipped(): Promise<Shipped> {
  const memoryMiB = await readMemoryLimit()
  // As in the Deployment: the heap gets three quarters of the memory.
  const NODE_OPTIONS = `--max-old-space-size=${Math.floor((memoryMiB * 3) / 4)}`
  const shipped = { ...(await readImageEnvironment()), NODE_OPTIONS }
  return {
    memoryBytes: memoryMiB << 20,
    launch: program => ({ ...program, env: { ...program.env, ...shipped } }),
  }
}

/** In MiB. */
async function readMemoryLimit(): Promise<number> {
  const values = parse(await readFile(join(root, 'charts/pullpass/values.yaml'), 'utf8'))
  const [, mebibytes] = /^(\d+)Mi$/.exec(values.resources.limits.memory) ?? []
  if (mebibytes === undefined) throw new Error('the memory limit of the chart is not in Mi')
  return Number(mebibytes)
}

/** The variables in the `ENV` lines of the last stage of the Dockerfile. */
export async function readImageEnvironment(): Promise<Record<string, string>> {
  const stages = (await readFile(join(root, 'Dockerfile'), 'utf8')).split(/^FROM /m)
  const lines = stages.at(-1)?.matchAll(/^ENV (\w+)=(\S+)$/gm) ?? []
  return Object.fromEntries([...lines].map(([, name, value]) => [name, value]))
}

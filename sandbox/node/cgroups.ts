import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Component } from '../components.ts'
import { run, waitFor } from '../processes.ts'
import { notifyReaper } from '../reaper.ts'

/**
 * Makes a cgroup with this name in every hierarchy of the machine; the pods of the node are in it.
 * The reaper removes them if this process crashes.
 */
export async function makeCgroups(name: string): Promise<Component> {
  const paths = (await hierarchies()).map(mount => join(mount, name))
  for (const path of paths) {
    notifyReaper(`folder ${path}`)
    await mkdir(path)
    await fillCpuset(path)
  }
  return {
    stop: async () => {
      for (const path of paths) {
        await waitFor(() => removed(path), { withinMs: 10_000, what: `${path} to be empty` })
        notifyReaper(`removed ${path}`)
      }
    },
  }
}

/** Where version 2 of cgroups, or each controller of version 1, is mounted. */
async function hierarchies(): Promise<string[]> {
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n')
  return mounts
    .map(line => line.split(' '))
    .filter(([, path, type = '']) => path?.startsWith('/sys/fs/cgroup') && /^cgroup2?$/.test(type))
    .map(([, path = '']) => path)
}

/** In version 1, no process can enter a new cpuset before it has processors and memory. */
async function fillCpuset(path: string): Promise<void> {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (dirname(path).endsWith('cpuset') && existsSync(join(path, file))) {
      await writeFile(join(path, file), await readFile(join(dirname(path), file)))
    }
  }
}

/** Its processes end a moment after the first process of the node. */
async function removed(path: string): Promise<boolean> {
  await run({ command: 'find', args: [path, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', '+'] })
  return !existsSync(path)
}

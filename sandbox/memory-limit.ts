import { existsSync } from 'node:fs'
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Program } from './processes.ts'
import { notifyReaper } from './reaper.ts'

/** A memory cgroup: what Kubernetes makes of `resources.limits.memory`. */
export interface MemoryLimit {
  /** The same program, inside the limit from its start. */
  hold(program: Program): Program
  /** How many processes the kernel has killed because of it, so far. */
  oomKills(): Promise<number>
  /** Removes the cgroup; its processes must have ended. */
  stop(): Promise<void>
}

type Setting = [file: string, value: string]

/** The files of one version of cgroups; swap is off, as in a Kubernetes node by default. */
const VERSIONS = {
  1: {
    mount: '/sys/fs/cgroup/memory',
    limits: (bytes: number): Setting[] => [
      ['memory.limit_in_bytes', `${bytes}`],
      ['memory.memsw.limit_in_bytes', `${bytes}`],
    ],
    events: 'memory.oom_control',
  },
  2: {
    mount: '/sys/fs/cgroup',
    limits: (bytes: number): Setting[] => [
      ['memory.max', `${bytes}`],
      ['memory.swap.max', '0'],
    ],
    events: 'memory.events',
  },
} as const

/**
 * Makes a memory cgroup with a limit in the cgroup of this process, or in the closest one above it
 * that can have one. Rejects if that is not possible: it needs root on Linux. The reaper removes
 * it if this process crashes.
 */
export async function limitMemory(bytes: number): Promise<MemoryLimit> {
  const folder = await makeCgroup(bytes).catch(error => {
    throw new Error(
      `a memory limit needs a memory cgroup, which only root on Linux can make: ${(error as Error).message}`,
    )
  })
  const { events } = VERSIONS[folder.version]
  const processes = join(folder.path, 'cgroup.procs')
  return {
    hold: program => ({
      ...program,
      command: '/bin/sh',
      args: [
        ...['-c', 'echo $$ > "$0" && exec "$@"', processes],
        ...[program.command, ...(program.args ?? [])],
      ],
    }),
    oomKills: async () => {
      const text = await readFile(join(folder.path, events), 'utf8')
      return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0)
    },
    stop: async () => {
      await rmdir(folder.path)
      notifyReaper(`removed ${folder.path}`)
    },
  }
}

async function makeCgroup(bytes: number): Promise<{ path: string; version: 1 | 2 }> {
  const { own, version } = memoryCgroupOf(await readFile('/proc/self/cgroup', 'utf8'))
  const { mount, limits } = VERSIONS[version]
  let problem: unknown = new Error(`${join(mount, own)} does not exist`)
  for (let parent = own; ; parent = dirname(parent)) {
    const path = join(mount, parent, `pullpass-${process.pid}-${Date.now()}`)
    try {
      if (existsSync(join(mount, parent))) return await fill(path, limits(bytes), version)
    } catch (error) {
      problem = error
    }
    if (parent === '/') throw problem
  }
}

async function fill(
  path: string,
  limits: Setting[],
  version: 1 | 2,
): Promise<{ path: string; version: 1 | 2 }> {
  if (version === 2) await writeFile(join(dirname(path), 'cgroup.subtree_control'), '+memory')
  notifyReaper(`folder ${path}`)
  await mkdir(path)
  try {
    for (const [file, value] of limits) {
      // A kernel without swap accounting has no file for it.
      if (existsSync(join(path, file))) await writeFile(join(path, file), value)
    }
  } catch (error) {
    await rmdir(path)
    throw error
  }
  return { path, version }
}

/** `4:memory:/a/b` is version 1; if no line names memory, `0::/a/b` is version 2. */
function memoryCgroupOf(text: string): { own: string; version: 1 | 2 } {
  const lines = text.split('\n').map(line => line.split(':'))
  const first = lines.find(([, controllers = '']) => controllers.split(',').includes('memory'))
  const line = first ?? lines.find(([number]) => number === '0')
  if (line === undefined) throw new Error('/proc/self/cgroup contains no cgroup')
  return { own: line.slice(2).join(':'), version: first === undefined ? 2 : 1 }
}

import { existsSync } from 'node:fs'
import { mkdir, rename } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { makeFolder, run } from '../processes.ts'
import { startProgress } from '../progress.ts'
import { checkGo } from './go.ts'
import { type Pins, readPins } from './pins.ts'
import { ToolError } from './tool-error.ts'
import { inTurn } from './turn.ts'

export interface Source {
  /** The folder beside this file with the go.mod that pins everything. */
  folder: string
  /** The module whose version is that of the tool. */
  module: string
  /** The package inside the module; default: the module itself. */
  path?: string
  /** Variables that the linker sets; `pinned(module)` is a version of go.mod, as in `v1.37.2`. */
  stamp?: (pinned: (module: string) => string) => Record<string, string>
  /** Build tags of Go. */
  tags?: readonly string[]
  /** Whether a part of it is C: the build needs a C compiler. */
  cgo?: boolean
  /** The duration of a first build, for messages. */
  takes: string
}

/**
 * Absolute path of the program in the cache; it is built first if it is missing. The key in the cache
 * contains its version and a hash of go.mod and go.sum. A build goes to its own folder and is renamed
 * when it is complete, so nobody runs an incomplete program. Only one process builds at a time.
 */
export async function build(name: string, source: Source, env: NodeJS.ProcessEnv): Promise<string> {
  const folder = fileURLToPath(new URL(source.folder, import.meta.url))
  const pins = await readPins(folder)
  const version = pins.version(source.module)
  const cache = cacheFolder(env)
  const place = join(cache, `${name}-${version}-${pins.digest}`)
  const program = join(place, name)
  if (existsSync(program)) return program

  await checkGo(name, { folder, env, oldest: pins.go })
  await mkdir(cache, { recursive: true })
  const title = `${name} ${version.slice(1)}`
  await inTurn(join(cache, 'building'), title, async () => {
    if (existsSync(program)) return
    const workshop = await makeFolder('building', cache)
    try {
      const done = join(workshop.path, 'done')
      // Temporary files of Go go to a folder that is removed also after a build that was killed.
      const temporary = join(workshop.path, 'go')
      await mkdir(temporary)
      await goBuild(title, source, {
        folder,
        flags: linkerFlags(source, pins),
        output: join(done, name),
        env: { ...env, CGO_ENABLED: source.cgo ? '1' : '0', GOWORK: 'off', GOTMPDIR: temporary },
      })
      await rename(done, place).catch(error => {
        // Another process has built the same program in the meantime.
        if (!existsSync(program)) throw error
      })
    } finally {
      await workshop.remove()
    }
  })
  return program
}

/** `${PULLPASS_SANDBOX_CACHE}`; default: a folder in the cache folder of the user. */
function cacheFolder(env: NodeJS.ProcessEnv): string {
  if (env.PULLPASS_SANDBOX_CACHE) return resolve(env.PULLPASS_SANDBOX_CACHE)
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'pullpass-sandbox')
}

function linkerFlags({ stamp }: Source, pins: Pins): string {
  const variables = Object.entries(stamp?.(pins.version) ?? {})
  return ['-s -w', ...variables.map(([name, value]) => `-X ${name}=${value}`)].join(' ')
}

async function goBuild(
  title: string,
  source: Source,
  job: { folder: string; flags: string; output: string; env: NodeJS.ProcessEnv },
): Promise<void> {
  const { folder, flags, output, env } = job
  const path = source.path === undefined ? source.module : `${source.module}/${source.path}`
  const progress = startProgress(`building ${title} (first time only, about ${source.takes})`)
  const { code, stderr } = await run({
    command: 'go',
    args: [
      ...['build', '-mod=readonly', '-trimpath', '-tags', (source.tags ?? []).join()],
      ...['-ldflags', flags, '-o', output, path],
    ],
    cwd: folder,
    env,
  })
  progress.stop()
  if (code !== 0) {
    const tail = stderr.trimEnd().split('\n').slice(-20).join('\n')
    throw new ToolError(`cannot build ${title}: go build ended with code ${code}:\n${tail}`)
  }
}

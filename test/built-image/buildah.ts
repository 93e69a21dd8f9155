import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../../sandbox/processes.ts'

/** Runs buildah with these arguments and resolves with its output; `input` is its standard input. */
export type Buildah = (args: string[], input?: string) => Promise<string>

/** Why no image can be built here, in one sentence; undefined: it can. */
export async function obstacleToBuilding(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'the image cannot be built: that needs root'
  const { code } = await run({ command: 'buildah', args: ['--version'] })
  if (code === 0) return undefined
  return 'the image cannot be built: install buildah (apt-get install --no-install-recommends buildah)'
}

/**
 * A buildah that needs no service, no kernel module and no registry, and keeps everything in
 * `folder`.
 */
export async function openBuildah(folder: string): Promise<Buildah> {
  const temporary = join(folder, 'temporary')
  await mkdir(temporary)
  const storage = [
    ...['--root', join(folder, 'storage'), '--runroot', join(folder, 'run')],
    ...['--storage-driver', 'vfs'],
  ]
  const env = { ...process.env, TMPDIR: temporary, BUILDAH_ISOLATION: 'chroot' }
  return async (args, input = '') => {
    const said = await run({ command: 'buildah', args: [...storage, ...args], env, input })
    if (said.code === 0) return said.stdout.trim()
    const tail = `${said.stdout}\n${said.stderr}`.trim().split('\n').slice(-20).join('\n')
    throw new Error(`buildah ${args[0]} ended with ${said.code}:\n${tail}`)
  }
}

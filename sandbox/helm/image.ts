import { chmod } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { bundle, nodeFlags } from '../../scripts/bundle.ts'
import type { Programs } from '../node/programs.ts'
import { makeFolder } from '../processes.ts'

const repository = 'registry.example.com/pullpass'
const tag = 'sandbox'
const main = join(import.meta.dirname, '..', '..', 'src', 'main.ts')

export interface Image {
  /** The chart's value `image`. */
  readonly value: { repository: string; tag: string }
  /** The program that the node runs for it. */
  readonly programs: Programs
  stop(): Promise<void>
}

/** Replaces the image that the Dockerfile builds: Node, the bundle, and the start command. */
export async function buildImage(): Promise<Image> {
  const folder = await makeFolder('image')
  const program = join(folder.path, 'pullpass.mjs')
  try {
    await bundle(main, program)
    // The program runs as another user, and the umask can be strict.
    await chmod(folder.path, 0o755)
    await chmod(program, 0o644)
  } catch (error) {
    await folder.remove()
    throw error
  }
  const image = {
    command: [process.execPath, ...nodeFlags, '/app/pullpass.mjs'],
    args: ['serve', '--config', '/etc/pullpass/config/config.yaml'],
    workingDirectory: '/',
    contents: { '/app': folder.path },
    user: 65532,
    env: { NODE_ENV: 'production', PATH: `${dirname(process.execPath)}:/usr/bin:/bin` },
    environment: (address: string) => ({
      PULLPASS_ADMISSION_ADDRESS: address,
      PULLPASS_OPERATIONS_ADDRESS: address,
    }),
  }
  return {
    value: { repository, tag },
    programs: { [`${repository}:${tag}`]: image },
    stop: folder.remove,
  }
}

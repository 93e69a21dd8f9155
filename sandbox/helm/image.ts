import { join } from 'node:path'
import { bundle, nodeFlags } from '../../scripts/bundle.ts'
import { run } from '../processes.ts'
import type { ImageContent } from '../node/pack-image.ts'
import { readImageEnvironment } from '../shipped.ts'

const repository = 'registry.example.com/pullpass'
const tag = 'sandbox'
const main = join(import.meta.dirname, '..', '..', 'src', 'main.ts')

/** The chart's value `image`. */
export const imageValue = { repository, tag }

/**
 * What the Dockerfile puts into the image: Node with its libraries, the bundle, which is made in
 * `folder`, and the start command.
 */
export async function pullpassImage(folder: string): Promise<ImageContent> {
  const program = join(folder, 'pullpass.mjs')
  await bundle(main, program)
  const libraries = await librariesOf(process.execPath)
  return {
    reference: `${repository}:${tag}`,
    files: {
      '/usr/local/bin/node': process.execPath,
      '/app/pullpass.mjs': program,
      ...Object.fromEntries(libraries.map(library => [library, library])),
    },
    entrypoint: ['/usr/local/bin/node', ...nodeFlags, '/app/pullpass.mjs'],
    env: await readImageEnvironment(),
    user: '65532:65532',
  }
}

/** The shared libraries of a program. `ldd` prints: `libm.so.6 => /lib/libm.so.6 (0x...)`, and the loader without the arrow. */
export async function librariesOf(program: string): Promise<string[]> {
  const { stdout } = await run({ command: 'ldd', args: [program] })
  return [...stdout.matchAll(/(?:=>|^)\s+(\/\S+) \(0x/gm)].map(([, library]) => String(library))
}

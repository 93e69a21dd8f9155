import { createHash } from 'node:crypto'
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { makeFolder, run } from '../processes.ts'

export interface ImageContent {
  reference: string
  /** Files of this machine by their path in the image. */
  files: Record<string, string>
  entrypoint: string[]
  env: Record<string, string>
  user: string
}

/** Writes an image of one layer to the file `archive`, in the format of `docker save`. */
export async function packImage(content: ImageContent, archive: string): Promise<void> {
  const { path: folder, remove } = await makeFolder('image')
  try {
    const root = join(folder, 'root')
    for (const [path, file] of Object.entries(content.files)) {
      await mkdir(dirname(join(root, path)), { recursive: true })
      await cp(file, join(root, path), { dereference: true })
    }
    await tar(join(folder, 'layer.tar'), root, '.')
    await writeFile(join(folder, 'config.json'), JSON.stringify(await configOf(content, folder)))
    const manifest = { Config: 'config.json', RepoTags: [content.reference], Layers: ['layer.tar'] }
    await writeFile(join(folder, 'manifest.json'), JSON.stringify([manifest]))
    await tar(archive, folder, 'manifest.json', 'config.json', 'layer.tar')
  } finally {
    await remove()
  }
}

async function configOf({ entrypoint, env, user }: ImageContent, folder: string): Promise<object> {
  const layer = createHash('sha256').update(await readFile(join(folder, 'layer.tar')))
  return {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: {
      Entrypoint: entrypoint,
      Env: Object.entries(env).map(pair => pair.join('=')),
      User: user,
      WorkingDir: '/',
    },
    rootfs: { type: 'layers', diff_ids: [`sha256:${layer.digest('hex')}`] },
  }
}

async function tar(archive: string, folder: string, ...names: string[]): Promise<void> {
  const owner = ['--owner=0', '--group=0', '--numeric-owner']
  const args = ['-cf', archive, ...owner, '-C', folder, ...names]
  const { code, stderr } = await run({ command: 'tar', args })
  if (code !== 0) throw new Error(`cannot pack ${archive}: ${stderr.trim()}`)
}

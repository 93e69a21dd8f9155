import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../../sandbox/processes.ts'
import { makeBaseImages } from './base-images.ts'
import { openBuildah } from './buildah.ts'

/** The configuration of the image, with the names of the OCI image specification. */
export interface ImageConfig {
  User: string
  Env: string[]
  Entrypoint: string[]
  Cmd: string[]
  Labels: Record<string, string>
}

export interface BuiltImage {
  config: ImageConfig
  /** Folders with the file systems of the image and of its base image. */
  root: string
  baseRoot: string
  /** The source of the build, as in a clone: no installed packages and no uncommitted files. */
  checkout: string
  revision: string
  /** Size of the compressed layers, as a node downloads them. */
  downloadBytes: number
  buildSeconds: number
}

/** This checkout. */
export const project = join(import.meta.dirname, '..', '..')

/** Builds the image of the commit that is checked out, in `folder`. */
export async function buildImage(folder: string): Promise<BuiltImage> {
  const revision = await git('rev-parse', 'HEAD')
  const checkout = await checkOut(revision, folder)
  const buildah = await openBuildah(folder)
  const bases = await makeBaseImages(buildah, folder)
  const begun = performance.now()
  const image = await buildah([
    ...['build', '--quiet', '--pull-never'],
    ...Object.entries(bases).flatMap(([name, id]) => ['--build-arg', `${name}=${id}`]),
    checkout,
  ])
  const buildSeconds = (performance.now() - begun) / 1000
  const mount = async (id: string) => buildah(['mount', await buildah(['from', id])])
  const described = JSON.parse(await buildah(['inspect', '--type', 'image', image]))
  const layout = join(folder, 'layout')
  await buildah(['push', '--quiet', image, `oci:${layout}`])
  return {
    config: described.OCIv1.config,
    root: await mount(image),
    baseRoot: await mount(bases.RUNTIME_IMAGE),
    checkout,
    revision,
    downloadBytes: await sizeOfLayers(layout),
    buildSeconds,
  }
}

async function checkOut(revision: string, folder: string): Promise<string> {
  const archive = join(folder, 'commit.tar')
  const checkout = join(folder, 'checkout')
  await git('archive', '--format=tar', `--output=${archive}`, revision)
  await mkdir(checkout)
  const { code, stderr } = await run({ command: 'tar', args: ['-xf', archive, '-C', checkout] })
  if (code !== 0) throw new Error(`tar: ${stderr}`)
  return checkout
}

async function git(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run({ command: 'git', args: ['-C', project, ...args] })
  if (code !== 0) throw new Error(`git ${args[0]}: ${stderr}`)
  return stdout.trim()
}

/** https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md */
async function sizeOfLayers(layout: string): Promise<number> {
  const read = async (file: string) => JSON.parse(await readFile(join(layout, file), 'utf8'))
  const { manifests } = await read('index.json')
  const manifest = await read(`blobs/${manifests[0].digest.replace(':', '/')}`)
  return manifest.layers.reduce((sum: number, { size }: { size: number }) => sum + size, 0)
}

import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { librariesOf } from '../../sandbox/helm/image.ts'
import { run } from '../../sandbox/processes.ts'
import type { Buildah } from './buildah.ts'

/** The build arguments of the Dockerfile that name its base images. */
export type Bases = Record<'BUILD_IMAGE' | 'RUNTIME_IMAGE', string>

const npm = '/usr/local/lib/npm'

/**
 * Makes base images of what this machine has, for where no registry of images can be reached. They
 * hold no more than the Dockerfile says that it needs: Node with npm and a shell, and the libraries
 * of Node.
 */
export async function makeBaseImages(buildah: Buildah, folder: string): Promise<Bases> {
  const runtime = join(folder, 'runtime')
  await copyLibraries(process.execPath, runtime)
  const build = join(folder, 'build')
  await cp(runtime, build, { recursive: true })
  await copyLibraries('/bin/sh', build)
  await copy('/bin/sh', join(build, 'bin', 'sh'))
  await copy(process.execPath, join(build, 'usr', 'local', 'bin', 'node'))
  await copyNpm(build)
  return {
    BUILD_IMAGE: await make(buildah, build, await npmSettings(build)),
    RUNTIME_IMAGE: await make(buildah, runtime, {}),
  }
}

async function copyLibraries(program: string, root: string): Promise<void> {
  for (const library of await librariesOf(program)) await copy(library, join(root, library))
}

/** The file itself where `source` is a link. */
async function copy(source: string, target: string): Promise<void> {
  await mkdir(dirname(target), { recursive: true })
  await cp(source, target, { recursive: true, dereference: true })
}

async function copyNpm(root: string): Promise<void> {
  const program = process.env.npm_execpath
  if (program === undefined) throw new Error('start this with npm: its own npm goes into the image')
  await copy(dirname(dirname(program)), join(root, npm))
  const command = join(root, 'usr', 'local', 'bin', 'npm')
  await writeFile(command, `#!/bin/sh\nexec node ${npm}/bin/npm-cli.js "$@"\n`, { mode: 0o755 })
}

/** npm in the image uses the registry and the CA of the npm of this machine. */
async function npmSettings(root: string): Promise<Record<string, string>> {
  const settings: Record<string, string> = { npm_config_registry: await npmConfig('registry') }
  const trusted = {
    npm_config_cafile: await npmConfig('cafile'),
    NODE_EXTRA_CA_CERTS: process.env.NODE_EXTRA_CA_CERTS,
  }
  for (const [name, file] of Object.entries(trusted)) {
    if (!file || file === 'null') continue
    settings[name] = `/etc/trusted/${name}.pem`
    await mkdir(join(root, 'etc', 'trusted'), { recursive: true })
    await writeFile(join(root, settings[name]), await readFile(file))
  }
  return settings
}

async function npmConfig(name: string): Promise<string> {
  const { stdout } = await run({ command: 'npm', args: ['config', 'get', name] })
  return stdout.trim()
}

async function make(buildah: Buildah, root: string, env: Record<string, string>): Promise<string> {
  const settings = Object.entries(env).map(([name, value]) => `ENV ${name}="${value}"`)
  const file = join(dirname(root), 'Dockerfile.base')
  await writeFile(file, ['FROM scratch', 'COPY . /', ...settings, ''].join('\n'))
  // By ID: buildah would look up a name in registries first.
  return buildah(['build', '--quiet', '--file', file, root])
}

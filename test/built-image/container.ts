import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Program } from '../../sandbox/processes.ts'
import type { BuiltImage } from './build-image.ts'

export interface Container {
  image: BuiltImage
  /** An empty folder for its volumes. */
  folder: string
  /** What is in the volumes, by path in the container, e.g. `/etc/pullpass/config/config.yaml`. */
  files?: Record<string, string>
  env?: Record<string, string>
  /** Instead of the image's CMD. */
  args?: string[]
}

const volumes = ['etc/pullpass', 'var/run/secrets']

/**
 * Does what a container runtime does, as far as needed here: a mount namespace with the image's root
 * made read-only, /proc, /dev and the volumes in it; then the image's user, without capabilities.
 * Only programs of the image run there, so a missing shell is noticed.
 */
const ENTER = `set -e
root=$1 folder=$2 user=$3
shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
chown -R "$user" "$folder"
for volume in ${volumes.join(' ')}; do
  mount --bind "$folder/$volume" "$root/$volume"
  mount -o remount,bind,ro "$root/$volume"
done
exec env -i "$@"`

/** Starts the entry point of the image as its user, with a read-only root. */
export async function containerOf(container: Container): Promise<Program> {
  const { image, folder, files = {}, env = {}, args } = container
  const { config, root } = image
  for (const point of ['proc', 'dev', ...volumes]) {
    await mkdir(join(root, point), { recursive: true })
    await mkdir(join(folder, point), { recursive: true })
  }
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), text)
  }
  const environment = [...config.Env, ...Object.entries(env).map(pair => pair.join('='))]
  const enter = ['/usr/sbin/chroot', `--userspec=${config.User}`, '--groups=', root]
  const words = [...config.Entrypoint, ...(args ?? config.Cmd)]
  return {
    name: 'the image',
    command: 'unshare',
    args: [
      ...['--mount', '--propagation', 'private', '/bin/sh', '-c', ENTER, 'sh'],
      ...[root, folder, config.User, ...environment],
      ...['/usr/bin/setpriv', '--no-new-privs', ...enter, ...words],
    ],
  }
}

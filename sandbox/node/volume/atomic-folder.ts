import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'

export interface VolumeFile {
  content: Buffer
  mode: number
}

const DATA = '..data'

/**
 * Shows `files` (by path below the folder) in `folder`, all at one moment, as the kubelet does
 * (kubernetes/kubernetes pkg/volume/util/atomic_writer.go):
 *
 *   name    -> ..data/name      one link for each first part of a path
 *   ..data  -> ..2026_xyz       the link that is swapped
 *   ..2026_xyz/                 the files of one moment
 *
 * `group` (fsGroup) owns the files where given; it needs root.
 */
export async function showFiles(
  folder: string,
  files: ReadonlyMap<string, VolumeFile>,
  group?: number,
): Promise<void> {
  const moment = await mkdtemp(join(folder, '..moment_'))
  await chmod(moment, 0o755)
  for (const [path, { content, mode }] of files) {
    const file = join(moment, path)
    await mkdir(dirname(file), { recursive: true, mode: 0o755 })
    await writeFile(file, content)
    if (group !== undefined) await chown(file, 0, group)
    await chmod(file, group === undefined ? mode : mode | 0o440)
  }
  const before = await readlink(join(folder, DATA)).catch(() => undefined)
  await symlink(relative(folder, moment), join(folder, '..data_tmp'))
  await rename(join(folder, '..data_tmp'), join(folder, DATA))
  await linkNames(folder, new Set([...files.keys()].map(path => path.split('/')[0] ?? path)))
  if (before !== undefined) await rm(join(folder, before), { recursive: true, force: true })
}

async function linkNames(folder: string, names: ReadonlySet<string>): Promise<void> {
  const there = (await readdir(folder)).filter(name => !name.startsWith('..'))
  for (const name of there) {
    if (!names.has(name)) await rm(join(folder, name))
  }
  for (const name of names) {
    if (!there.includes(name)) await symlink(join(DATA, name), join(folder, name))
  }
}

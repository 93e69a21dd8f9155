import type { Stats } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Mount, RootView } from './root-view.ts'

type User = RootView['user']

/**
 * What must be mounted so that `user` reaches these folders although folders above them, or they
 * themselves, let only their owner in: a checkout in root's home, or in one that `mktemp -d` made. The
 * folders above are made anew in the container; one that is closed itself is put together of
 * what is in it. Empty where all are open.
 */
export async function openedFor(user: User, folders: string[]): Promise<Mount[]> {
  const mounts = await Promise.all(
    [...new Set(folders)].map(async folder => {
      if (await isClosed(folder, user)) return entriesOf(folder)
      const above = await Promise.all(foldersAbove(folder).map(each => isClosed(each, user)))
      return above.includes(true) ? [mountOf(folder, 'folder')] : []
    }),
  )
  return mounts.flat()
}

async function entriesOf(folder: string): Promise<Mount[]> {
  const entries = await readdir(folder, { withFileTypes: true })
  return entries
    .filter(entry => entry.isDirectory() || entry.isFile())
    .map(entry => mountOf(join(folder, entry.name), entry.isFile() ? 'file' : 'folder'))
}

function mountOf(path: string, kind: Mount['kind']): Mount {
  return { source: path, target: path, kind, readOnly: true }
}

function foldersAbove(folder: string): string[] {
  const above = dirname(folder)
  return above === folder ? [] : [above, ...foldersAbove(above)]
}

async function isClosed(folder: string, user: User): Promise<boolean> {
  return (permissions(await stat(folder), user) & 1) === 0
}

/** The permissions of the folder that hold for the user. */
function permissions({ mode, uid, gid }: Stats, user: User): number {
  if (uid === user.uid) return mode >> 6
  return user.gid === gid || user.groups.includes(gid) ? mode >> 3 : mode
}

import { run } from '../processes.ts'
import type { Privilege } from './container/root-view.ts'

const TRIAL = ['--mount', '--propagation', 'private', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']

/**
 * How this process can make mount namespaces: as root where it may, else in a user namespace.
 * Rejects, saying what is in the way, where neither is possible (a container without CAP_SYS_ADMIN,
 * user namespaces switched off).
 */
export async function findPrivilege(): Promise<Privilege> {
  const asRoot = await unshare(TRIAL)
  if (asRoot.code === 0) return 'root'
  const asUser = await unshare(['--map-root-user', ...TRIAL])
  if (asUser.code === 0) return 'user-namespace'
  throw new Error(
    'the node of the sandbox needs mount namespaces: run it as root, or allow user namespaces ' +
      '(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0); ' +
      `unshare says: ${asRoot.stderr.trim()}; ${asUser.stderr.trim()}`,
  )
}

async function unshare(args: string[]) {
  return run({ command: 'unshare', args })
}

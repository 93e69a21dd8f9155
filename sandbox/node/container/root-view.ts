/** How this process can give a program a view of its own: as root, or in a user namespace. */
export type Privilege = 'root' | 'user-namespace'

export interface Mount {
  source: string
  /** Where the program sees it, with every symbolic link of this machine resolved. */
  target: string
  kind: 'folder' | 'file'
  readOnly: boolean
}

export interface RootView {
  privilege: Privilege
  /** An empty folder of this machine to build the view on. */
  root: string
  mounts: Mount[]
  /** Folders of this machine that stay visible where a volume would cover them. */
  keep: string[]
  readOnly: boolean
  /** What the machine is called in there. */
  hostname: string
  user: { uid: number; gid: number; groups: number[] }
  workingDirectory: string
}

/**
 * The command that runs `launch` with a root of its own: what this machine has, read-only, and
 * the mounts; and with a host name of its own. Nothing of the machine is touched: all happens in a mount namespace that ends with
 * the program.
 *
 *   /             a tmpfs
 *   /usr, /proc   bound from the machine, whatever is mounted below them too
 *   /.host        the machine's root
 *   /etc          where a mount needs a mount point below it: a folder of ours, with links to
 *                 the entries of /.host/etc
 *
 * Needs unshare, setpriv, mount and pivot_root (util-linux). The process keeps its id through all
 * of it.
 */
export function commandIn(view: RootView, launch: string[]): { command: string; args: string[] } {
  const own = ['--mount', '--uts']
  const namespaces = view.privilege === 'root' ? own : ['--map-root-user', ...own]
  const shell = ['/bin/sh', '-c', script(view), 'sh', ...launch]
  return { command: 'unshare', args: [...namespaces, '--propagation', 'private', ...shell] }
}

const HEAD = `set -e
program_path=$PATH
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs -o mode=755 tmpfs "$root"
# Else a bound folder that holds "$root" would hold it a second time.
mount --make-unbindable "$root"
mkdir "$root/.host" "$root/.old"
mount --rbind / "$root/.host"
for entry in /* /.[!.]*; do
  case " $own " in *" $entry "*) continue ;; esac
  if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
  elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"
  fi
done
while read -r _ _ _ _ target options _; do
  case $target in
    "$root/proc"* | "$root/sys"* | "$root/dev"* | "$root/.host/proc"* | "$root/.host/sys"* | "$root/.host/dev"*) ;;
    # Some kinds of file system refuse; the program's user has no right to write there either.
    "$root/"*) mount -o "remount,bind,$options,ro" "$target" 2>/dev/null || : ;;
  esac
done < /proc/self/mountinfo
shade() {
  rm -f "$root$1"
  mkdir "$root$1"
  [ ! -d "$1" ] || find "$1" -mindepth 1 -maxdepth 1 -printf '/.host%p\\0' | xargs -0 -r ln -s -t "$root$1"
}
point() {
  if [ "$2" = folder ]; then [ -d "$root$1" ] && [ ! -L "$root$1" ] || { rm -f "$root$1"; mkdir -p "$root$1"; }
  else rm -f "$root$1"; mkdir -p "$root\${1%/*}"; : > "$root$1"
  fi
}
`

function script(view: RootView): string {
  const mounts = view.mounts.toSorted((a, b) => depth(a.target) - depth(b.target))
  const shaded = shadedFolders(mounts)
  const own = [...shaded, ...mounts.map(({ target }) => target)]
  const kept = view.keep.filter(folder => mounts.some(({ target }) => isBelow(folder, target)))
  return [
    `root=${quote(view.root)} own=${quote(own.join(' '))}`,
    // A machine that is a container itself may not allow it; it is a name only.
    `{ echo ${quote(view.hostname)} > /proc/sys/kernel/hostname; } 2>/dev/null || :`,
    HEAD,
    ...shaded.map(folder => `shade ${quote(folder)}`),
    ...mounts.flatMap(({ source, target, kind }) => bind(source, target, kind)),
    ...kept.flatMap(folder => bind(folder, folder, 'folder')),
    ...[...mounts.filter(mount => mount.readOnly).map(mount => mount.target), ...kept].map(
      target => `mount -o remount,bind,ro "$root"${quote(target)}`,
    ),
    'cd "$root"; pivot_root . .old; umount -l /.old; rmdir /.old',
    view.readOnly ? 'mount -o remount,bind,ro /' : '',
    `cd ${quote(view.workingDirectory)}`,
    `exec_as() { PATH=$program_path; exec "$@"; }`,
    `exec_as ${asUser(view)} "$@"`,
  ].join('\n')
}

/** Every folder above a mount, outermost first, but for those inside another mount. */
function shadedFolders(mounts: Mount[]): string[] {
  const above = mounts.flatMap(({ target }) => {
    const parts = target.split('/').slice(1, -1)
    return parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`)
  })
  const inside = (folder: string) =>
    mounts.some(({ target }) => folder === target || isBelow(folder, target))
  return [...new Set(above)].filter(folder => !inside(folder)).sort((a, b) => depth(a) - depth(b))
}

function bind(source: string, target: string, kind: Mount['kind']): string[] {
  const at = quote(target)
  return [`point ${at} ${kind}`, `mount --bind ${quote(source)} "$root"${at}`]
}

function asUser({ privilege, user }: RootView): string {
  const { uid, gid, groups } = user
  if (privilege === 'user-namespace') {
    return `/usr/bin/unshare --user --map-user=${uid} --map-group=${gid} -- /usr/bin/setpriv --no-new-privs --`
  }
  const supplementary = groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups'
  return `/usr/bin/setpriv --reuid=${uid} --regid=${gid} ${supplementary} --no-new-privs --inh-caps=-all --bounding-set=-all --`
}

function depth(path: string): number {
  return path.split('/').length
}

function isBelow(path: string, folder: string): boolean {
  return path.startsWith(folder === '/' ? folder : `${folder}/`)
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

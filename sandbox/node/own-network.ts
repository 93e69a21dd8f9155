import { readlinkSync } from 'node:fs'
import { askedVersion, buildAll, NEWEST } from '../tools.ts'

/** Why there can be no real node here, as a sentence; undefined if there can be one. */
export function obstacleToNode(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    return 'A real node needs root on Linux: a kubelet makes namespaces, mounts and cgroups.'
  }
  const version = askedVersion(process.env) ?? NEWEST
  if (version !== NEWEST) return `There is no node of Kubernetes ${version}, only of ${NEWEST}.`
  return undefined
}

/** Whether this process is in a network namespace that `enterOwnNetwork` made. */
export function hasOwnNetwork(): boolean {
  return process.env.PULLPASS_OWN_NETWORK === readlinkSync('/proc/self/ns/net')
}

const SCRIPT = `ip link set lo up &&
PULLPASS_OWN_NETWORK=$(readlink /proc/self/ns/net) exec "$@"`

/**
 * Starts this program again, as the same process, in a network namespace of its own with a loopback
 * interface: the addresses of a node and of its pods exist nowhere else. Returns if it has one.
 */
export async function enterOwnNetwork(): Promise<void> {
  if (hasOwnNetwork()) return
  // A build can need the network of the machine.
  await buildAll()
  const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  process.execve?.('/usr/bin/unshare', ['unshare', '--net', 'sh', '-c', SCRIPT, 'sh', ...words])
}

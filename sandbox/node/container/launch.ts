import { mkdir, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import type { V1Container, V1Pod, V1VolumeMount } from '@kubernetes/client-node'
import type { Program } from '../../processes.ts'
import { ConfigError } from '../pod/config-error.ts'
import { expand } from '../pod/environment.ts'
import type { ImageProgram } from '../programs.ts'
import type { PodVolumes } from '../volume/volumes.ts'
import { openedFor } from './opened.ts'
import { commandIn, type Mount, type Privilege } from './root-view.ts'

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export interface Launch {
  pod: V1Pod
  container: V1Container
  image: ImageProgram
  env: Record<string, string>
  volumes: PodVolumes
  privilege: Privilege
  /** An empty folder of this machine; the container's root is built on it. */
  root: string
}

/**
 * How to start a container, or with `instead` another command in the same surroundings (a probe,
 * a hook). Throws a ConfigError where the pod forbids what the image is.
 */
export async function programOf(launch: Launch, instead?: string[]): Promise<Program> {
  const { container, image, pod } = launch
  const env = { PATH, HOSTNAME: pod.spec?.hostname ?? pod.metadata?.name ?? '', ...launch.env }
  const mounts = await Promise.all(
    (container.volumeMounts ?? []).map(mount => mountOf(mount, launch.volumes, env)),
  )
  const contents = Object.entries(image.contents ?? {}).map(([target, source]) => {
    return { source, target, kind: 'folder' as const, readOnly: true }
  })
  const folders = [image.workingDirectory, dirname(image.command[0] ?? '/')]
  const keep = await Promise.all(folders.map(folder => realpath(folder)))
  const user = userOf(launch)
  const opened = launch.privilege === 'root' ? await openedFor(user, keep) : []
  const view = {
    privilege: launch.privilege,
    root: launch.root,
    mounts: [...contents, ...mounts, ...opened],
    keep,
    hostname: env.HOSTNAME,
    readOnly: container.securityContext?.readOnlyRootFilesystem === true,
    user,
    workingDirectory: container.workingDir ?? image.workingDirectory,
  }
  const words = instead ?? wordsOf(container, image).map(word => expand(word, env))
  // Only these variables: a tool that watches our processes may add others.
  const exactly = Object.entries(env).map(([name, value]) => `${name}=${value}`)
  const command = commandIn(view, ['/usr/bin/env', '-i', ...exactly, ...words])
  return { name: `${pod.metadata?.name}/${container.name}`, ...command, env }
}

/** command replaces the image's ENTRYPOINT and CMD, args its CMD only. */
function wordsOf({ command, args }: V1Container, image: ImageProgram): string[] {
  if (command?.length) return [...command, ...(args ?? [])]
  return [...image.command, ...(args?.length ? args : (image.args ?? []))]
}

function userOf({ pod, container, image }: Launch) {
  const ofPod = pod.spec?.securityContext
  const own = container.securityContext
  const uid = own?.runAsUser ?? ofPod?.runAsUser ?? image.user ?? 0
  if (uid === 0 && (own?.runAsNonRoot ?? ofPod?.runAsNonRoot)) {
    throw new ConfigError('container has runAsNonRoot and image will run as root')
  }
  const gid = own?.runAsGroup ?? ofPod?.runAsGroup ?? image.user ?? 0
  const fsGroup = ofPod?.fsGroup === undefined ? [] : [ofPod.fsGroup]
  return { uid, gid, groups: [...fsGroup, ...(ofPod?.supplementalGroups ?? [])] }
}

async function mountOf(
  mount: V1VolumeMount,
  volumes: PodVolumes,
  env: Record<string, string>,
): Promise<Mount> {
  const target = await resolved(mount.mountPath)
  const readOnly = mount.readOnly === true
  const below = mount.subPath ?? expand(mount.subPathExpr ?? '', env)
  const folder = volumes.folder(mount.name)
  if (!below) return { source: folder, target, kind: 'folder', readOnly }
  const wanted = join(folder, below)
  if (relative(folder, wanted).startsWith('..')) {
    throw new ConfigError(`subPath ${below} leads out of volume ${mount.name}`)
  }
  // Not there: the kubelet makes a folder. There: what it is now, since a subPath is not kept current.
  if (!(await stat(wanted).catch(() => undefined))) await mkdir(wanted, { recursive: true })
  const source = await realpath(wanted)
  const kind = (await stat(source)).isDirectory() ? 'folder' : 'file'
  return { source, target, kind, readOnly }
}

/**
 * The path with the links of those of its folders that are there resolved: /var/run/x is /run/x on
 * most machines.
 */
async function resolved(path: string): Promise<string> {
  const there = await realpath(path).catch(() => undefined)
  if (there !== undefined || path === '/') return there ?? path
  return join(await resolved(dirname(path)), basename(path))
}

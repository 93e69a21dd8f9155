import { chmod, chown, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Pod, V1Volume } from '@kubernetes/client-node'
import type { Lookup } from '../pod/environment.ts'
import type { PodFacts } from '../pod/fields.ts'
import { showFiles, type VolumeFile } from './atomic-folder.ts'
import type { Tokens } from './tokens.ts'
import { filesOf } from './volume-files.ts'

/** A pod's volumes as folders of this machine, kept current while the pod lives. */
export interface PodVolumes {
  folder(volume: string): string
  stop(): Promise<void>
}

/**
 * Makes every volume of the pod below `folder` and looks every `everyMs` whether one shows what
 * is no longer so. Rejects with a ConfigError where something the pod needs is not there.
 */
export async function prepareVolumes(options: {
  pod: V1Pod
  facts: () => PodFacts
  lookup: Lookup
  tokens: Tokens
  folder: string
  everyMs: number
  /** fsGroup, where this process may give files away. */
  group: number | undefined
}): Promise<PodVolumes> {
  const { pod, group } = options
  const volumes = pod.spec?.volumes ?? []
  const shown = new Map<string, string>()
  const stopping = new AbortController()
  const folderOf = (volume: string) => join(options.folder, volume)

  async function show(volume: V1Volume): Promise<void> {
    await options.tokens.renew(tokensOf(volume))
    const sources = { lookup: options.lookup, facts: options.facts(), token: options.tokens.text }
    const files = filesOf(volume, sources)
    if (!files || shown.get(volume.name) === fingerprint(files)) return
    await showFiles(folderOf(volume.name), files, group)
    shown.set(volume.name, fingerprint(files))
  }

  for (const volume of volumes) {
    await makeFolder(folderOf(volume.name), volume.emptyDir ? 0o777 : 0o755, group)
    await show(volume)
  }

  async function keepCurrent(): Promise<void> {
    while (!stopping.signal.aborted) {
      await sleep(options.everyMs, undefined, { signal: stopping.signal }).catch(() => {})
      // As the kubelet: what cannot be made now keeps showing what it showed.
      for (const volume of volumes) await show(volume).catch(() => {})
    }
  }
  const running = keepCurrent()

  return {
    folder: folderOf,
    async stop() {
      stopping.abort()
      await running
    },
  }
}

function tokensOf(volume: V1Volume) {
  return (volume.projected?.sources ?? []).flatMap(({ serviceAccountToken }) =>
    serviceAccountToken ? [serviceAccountToken] : [],
  )
}

function fingerprint(files: ReadonlyMap<string, VolumeFile>): string {
  return JSON.stringify(
    [...files].map(([path, { content, mode }]) => [path, content.toString('base64'), mode]),
  )
}

async function makeFolder(path: string, mode: number, group: number | undefined): Promise<void> {
  await mkdir(path, { recursive: true })
  if (group !== undefined) await chown(path, 0, group)
  await chmod(path, mode)
}

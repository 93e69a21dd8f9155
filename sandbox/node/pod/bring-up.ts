import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Container, V1Pod } from '@kubernetes/client-node'
import { createTokens } from '../volume/tokens.ts'
import { type PodVolumes, prepareVolumes } from '../volume/volumes.ts'
import type { PodFacts } from './fields.ts'
import { type PodContainer, type PodOfContainer, runPodContainer } from './pod-container.ts'
import type { PodContext } from './pod-context.ts'

export interface BringUp {
  pod: V1Pod
  context: PodContext
  facts: () => PodFacts
  /** Where each container is put as it is started. */
  containers: Map<string, PodContainer>
  stopping: AbortSignal
  onChange: () => void
}

/**
 * Brings a pod up: its volumes, its init containers one after the other, then the others
 * together. Resolves with the volumes (undefined: stopped before they were there) when the last has
 * been started or one has failed for good.
 */
export async function bringUp(of: BringUp): Promise<PodVolumes | undefined> {
  const volumes = await volumesOf(of)
  if (volumes && (await initialized(of, volumes))) {
    const restart = policyOf(of.pod)
    for (const spec of of.pod.spec?.containers ?? []) start(spec, { ...of, volumes, restart })
    of.onChange()
  }
  return volumes
}

async function initialized(of: BringUp, volumes: PodVolumes): Promise<boolean> {
  const restart = policyOf(of.pod) === 'Never' ? 'Never' : 'OnFailure'
  for (const spec of of.pod.spec?.initContainers ?? []) {
    if (of.stopping.aborted) return false
    const exitCode = await start(spec, { ...of, volumes, restart }).ended
    if (exitCode !== 0) return false
  }
  return !of.stopping.aborted
}

type Policy = PodOfContainer['restart']

function policyOf({ spec }: V1Pod): Policy {
  return (spec?.restartPolicy ?? 'Always') as Policy
}

function start(spec: V1Container, of: BringUp & { volumes: PodVolumes; restart: Policy }) {
  const graceMs = (of.pod.spec?.terminationGracePeriodSeconds ?? 30) * 1000
  const started = runPodContainer(spec, { ...of, graceMs })
  of.containers.set(spec.name, started)
  return started
}

async function volumesOf({ pod, context, facts, stopping }: BringUp) {
  const { core, objects, rhythm, privilege } = context
  const tokens = createTokens({ core, pod, renewAt: rhythm.renewTokensAt, now: Date.now })
  const group = privilege === 'root' ? pod.spec?.securityContext?.fsGroup : undefined
  const folder = join(context.folder, 'volumes')
  const options = { pod, facts, lookup: objects, tokens, folder, everyMs: rhythm.volumes, group }
  while (!stopping.aborted) {
    try {
      return await prepareVolumes(options)
    } catch (error) {
      const message = `MountVolume.SetUp failed: ${(error as Error).message}`
      context.say(pod)('Warning', 'FailedMount', message)
      await sleep(1000, undefined, { signal: stopping }).catch(() => {})
    }
  }
  return undefined
}

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Container, V1Pod } from '@kubernetes/client-node'
import { type Program, run, startProcess } from '../../processes.ts'
import { realAddress } from '../addresses.ts'
import { type Launch, programOf } from '../container/launch.ts'
import { type RunningContainer, runContainer } from '../container/run-container.ts'
import type { PodVolumes } from '../volume/volumes.ts'
import { ConfigError } from './config-error.ts'
import { environmentOf, serviceLinks } from './environment.ts'
import type { PodFacts } from './fields.ts'
import type { PodContext } from './pod-context.ts'

export interface PodOfContainer {
  context: PodContext
  facts: () => PodFacts
  volumes: PodVolumes
  graceMs: number
  restart: 'Always' | 'OnFailure' | 'Never'
  onChange: () => void
}

export interface PodContainer extends RunningContainer {
  /** Runs a command in it to its end, with what the container has. */
  exec(command: string[]): Promise<{ code: number | null; stdout: string; stderr: string }>
}

/** Starts one container of a pod on what its node offers. */
export function runPodContainer(container: V1Container, of: PodOfContainer): PodContainer {
  const { context } = of
  const { pod, podIP } = of.facts()
  const address = realAddress(podIP)
  const root = join(context.folder, 'roots', container.name)
  const logs = join(context.logFolder, container.name)
  for (const folder of [root, logs]) mkdirSync(folder, { recursive: true })

  function launch(): Launch {
    const image = context.programs[container.image ?? '']
    if (!image) {
      const message = `this node has no program for image ${container.image}`
      throw new ConfigError(message, 'ErrImagePull')
    }
    const env = {
      ...environmentOf(
        container,
        { ...image.env, ...given(pod, context) },
        of.facts(),
        context.objects,
      ),
      ...image.environment?.(address, pod),
    }
    return { pod, container, image, env, volumes: of.volumes, privilege: context.privilege, root }
  }

  const running = runContainer({
    surroundings: {
      container,
      address,
      exec: async (command, timeoutMs) => exec(await programOf(launch(), command), timeoutMs),
    },
    launch: async attempt => ({
      ...(await programOf(launch())),
      outputFile: join(logs, `${attempt}.log`),
    }),
    restart: of.restart,
    graceMs: of.graceMs,
    backOffMs: context.rhythm.backOff,
    say: context.say(pod),
    onChange: of.onChange,
  })
  return { ...running, exec: async command => run(await programOf(launch(), command)) }
}

function given(pod: V1Pod, { objects, apiServer }: PodContext): Record<string, string> {
  return {
    ...(pod.spec?.enableServiceLinks === false ? {} : serviceLinks(objects.services())),
    KUBERNETES_SERVICE_HOST: apiServer.host,
    KUBERNETES_SERVICE_PORT: apiServer.port,
    KUBERNETES_SERVICE_PORT_HTTPS: apiServer.port,
  }
}

async function exec(program: Program, timeoutMs: number) {
  const started = await startProcess(program)
  const inTime = new AbortController()
  const late = sleep(timeoutMs, 'late' as const, { signal: inTime.signal }).catch(() => undefined)
  const first = await Promise.race([started.ended, late])
  inTime.abort()
  await started.stop(0)
  if (first === 'late') throw new Error(`command was not done in ${timeoutMs / 1000} s`)
  return { code: (await started.ended).code, output: started.output() }
}

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { BluemixEnvironment } from '../../sandbox/bluemix/environment.ts'
import type { ControlPlane } from '../../sandbox/control-plane.ts'
import { makeFolder, startProcess } from '../../sandbox/processes.ts'

interface Site {
  environment: BluemixEnvironment
  controlPlane: Pick<ControlPlane, 'kubeconfigFor'>
}

export interface CleanUpOptions {
  apiKey?: string
  /** Default: the UID of kube-system. */
  clusterName?: string
  arguments?: string[]
}

/** Runs `clean-up` as a process beside the cluster, with the rights of its ServiceAccount. */
export async function runCleanUp(
  { environment, controlPlane }: Site,
  options: CleanUpOptions = {},
): Promise<{ code: number | null; output: string }> {
  const { apiKey = environment.apiKey, clusterName } = options
  const folder = await makeFolder('clean-up')
  try {
    await writeFile(join(folder.path, 'api-key'), apiKey)
    const settings = {
      domain: environment.domain,
      clusterName,
      bluemix: {
        credentialsDirectory: folder.path,
        caFile: environment.caFile,
        organization: 'acme',
      },
      controller: { listEverySeconds: 5 },
      certificate: { names: ['127.0.0.1'] },
      kubernetes: { kubeconfig: await controlPlane.kubeconfigFor('pullpass', 'pullpass') },
    }
    const config = join(folder.path, 'config.yaml')
    await writeFile(config, JSON.stringify(settings))
    const main = join(import.meta.dirname, '../../src/main.ts')
    const running = await startProcess({
      name: 'clean-up',
      command: process.execPath,
      args: [main, 'clean-up', '--config', config, ...(options.arguments ?? [])],
      env: { PATH: process.env.PATH, HTTPS_PROXY: environment.gateway },
    })
    const { code } = await running.ended
    return { code, output: running.output() }
  } finally {
    await folder.remove()
  }
}

import { join } from 'node:path'
import { makeFolder, run } from '../processes.ts'
import { tool } from '../tools.ts'

export type HelmVersion = 3 | 4

export interface Said {
  code: number | null
  stdout: string
  stderr: string
}

export interface HelmCommand {
  /**
   * Runs helm in the folder of the checkout until it ends. Resolves also if helm fails. `values` is
   * passed as a file.
   */
  run(args: string[], values?: object): Promise<Said>
  stop(): Promise<void>
}

const checkout = join(import.meta.dirname, '..', '..')

/** Real Helm, with its own folders for configuration, cache and data. */
export async function createHelmCommand(
  version: HelmVersion,
  kubeconfigFile: string,
): Promise<HelmCommand> {
  const command = await tool(version === 3 ? 'helm3' : 'helm')
  const folder = await makeFolder('helm')
  const env = {
    PATH: process.env.PATH,
    HOME: folder.path,
    HELM_CONFIG_HOME: join(folder.path, 'config'),
    HELM_CACHE_HOME: join(folder.path, 'cache'),
    HELM_DATA_HOME: join(folder.path, 'data'),
    KUBECACHEDIR: join(folder.path, 'kube-cache'),
    KUBECONFIG: kubeconfigFile,
  }
  return {
    run: async (args, values) =>
      run({
        command,
        args: values === undefined ? args : [...args, '--values', '-'],
        env,
        cwd: checkout,
        input: values === undefined ? '' : JSON.stringify(values),
      }),
    stop: folder.remove,
  }
}

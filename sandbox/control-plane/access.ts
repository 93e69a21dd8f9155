import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node'
import { run } from '../processes.ts'
import type { Layout } from './programs.ts'

export interface Access {
  /** The API server's certificate authority, as PEM and as a file. */
  readonly ca: string
  readonly caFile: string
  /** The kubeconfig of the administrator (system:masters). */
  readonly kubeconfigFile: string
  /** The kubectl of this version of Kubernetes. */
  readonly kubectlFile: string
  /** The same as an object of the client library; a new one for each call. */
  kubeConfig(): KubeConfig
  /** A real token of a ServiceAccount that exists, by TokenRequest; `seconds` >= 600, default 3600. */
  token(namespace: string, serviceAccount: string, seconds?: number): Promise<string>
  /** The path of a kubeconfig with such a token. */
  kubeconfigFor(namespace: string, serviceAccount: string): Promise<string>
  /** The path of a kubeconfig with the token of this program of the cluster. */
  kubeconfigOf(program: 'kubelet' | 'scheduler'): Promise<string>
  /** Runs kubectl as the administrator until it ends. Resolves also if kubectl fails. */
  kubectl(...args: string[]): Promise<{ stdout: string; stderr: string; code: number | null }>
}

/** Access to a control plane whose API server has written its certificate. */
export async function openAccess(layout: Layout, kubectl: string): Promise<Access> {
  const { caFile, tokens, file, url } = layout
  const kubeconfigFile = await writeKubeconfig(layout, url, tokens.administrator)

  function kubeConfig(): KubeConfig {
    const config = new KubeConfig()
    config.loadFromFile(kubeconfigFile)
    return config
  }

  async function token(namespace: string, name: string, seconds = 3600): Promise<string> {
    const { status } = await kubeConfig()
      .makeApiClient(CoreV1Api)
      .createNamespacedServiceAccountToken({
        namespace,
        name,
        body: { spec: { audiences: [], expirationSeconds: seconds } },
      })
    if (status?.token === undefined) throw new Error(`no token for ${namespace}/${name}`)
    return status.token
  }

  return {
    ca: readFileSync(caFile, 'utf8'),
    caFile,
    kubeconfigFile,
    kubectlFile: kubectl,
    kubeConfig,
    token,
    kubeconfigFor: async (namespace, serviceAccount) =>
      writeKubeconfig(layout, url, await token(namespace, serviceAccount)),
    kubeconfigOf: program => writeKubeconfig(layout, url, tokens[program]),
    kubectl: async (...args) =>
      run({
        command: kubectl,
        args,
        env: {
          ...process.env,
          KUBECONFIG: kubeconfigFile,
          // Nothing is read from or written to the user's home folder.
          KUBECACHEDIR: file('kubectl-cache'),
          KUBERC: 'off',
        },
      }),
  }
}

/** Writes a kubeconfig for this bearer token; JSON is YAML too. */
export async function writeKubeconfig(
  layout: Layout,
  server: string,
  token: string,
): Promise<string> {
  const path = layout.file(`${randomUUID()}.kubeconfig`)
  const name = 'sandbox'
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name, cluster: { server, 'certificate-authority': layout.caFile } }],
    users: [{ name, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: name } }],
    'current-context': name,
  }
  await writeFile(path, JSON.stringify(config, undefined, 2), { mode: 0o600 })
  return path
}

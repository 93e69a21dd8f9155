import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { RequestOptions } from 'node:https'
import { dirname, resolve } from 'node:path'
import { KubeConfig } from '@kubernetes/client-node'
import { parse } from 'yaml'

/**
 * The configuration for requests to the API server: `file` if given, else the mounted service account,
 * else $KUBECONFIG or ~/.kube/config. Throws where a file is not readable.
 */
export function loadKubeConfig(file: string | undefined, env: NodeJS.ProcessEnv): KubeConfig {
  const kubeConfig = new KubeConfig()
  if (file !== undefined) {
    kubeConfig.loadFromFile(file)
    keepTokenFiles(kubeConfig, file)
  } else if (env.KUBERNETES_SERVICE_HOST && env.KUBERNETES_SERVICE_PORT) {
    kubeConfig.loadFromCluster()
  } else {
    kubeConfig.loadFromDefault()
  }
  return kubeConfig
}

/**
 * The client library does not know the `tokenFile` of a kubeconfig's user; it does know this form.
 */
function keepTokenFiles(kubeConfig: KubeConfig, file: string): void {
  for (const { name, user } of parse(readFileSync(file, 'utf8'))?.users ?? []) {
    if (!user?.tokenFile) continue
    const tokenFile = resolve(dirname(file), user.tokenFile)
    const fromFile = { name, authProvider: { name: 'tokenFile', config: { tokenFile } } }
    kubeConfig.users = kubeConfig.users.map(known => (known.name === name ? fromFile : known))
  }
}

/** The credentials for one request, read from their files at this moment. */
export interface Credentials {
  headers: Record<string, string>
  tls: Pick<
    RequestOptions,
    'ca' | 'cert' | 'key' | 'pfx' | 'passphrase' | 'rejectUnauthorized' | 'servername'
  >
}

/**
 * Reads the credentials of the current user: token, token file, client certificate, basic, or a
 * credential plug-in. Rejects when a file is not there, as happens for a moment while the kubelet
 * swaps a projected volume.
 */
export async function readCredentials(kubeConfig: KubeConfig): Promise<Credentials> {
  const options: RequestOptions = {}
  await kubeConfig.applyToHTTPSOptions(options)
  const headers = { ...options.headers } as Record<string, string>
  const tokenFile = kubeConfig.getCurrentUser()?.authProvider?.config?.tokenFile
  // The library keeps a token for a minute. After a 401 that is a minute lost, and the file is
  // small.
  if (tokenFile) headers.Authorization = `Bearer ${(await readFile(tokenFile, 'utf8')).trim()}`
  if (options.auth) headers.Authorization = `Basic ${Buffer.from(options.auth).toString('base64')}`
  const { ca, cert, key, pfx, passphrase, rejectUnauthorized, servername } = options
  const tls = { ca, cert, key, pfx, passphrase, rejectUnauthorized, servername }
  return {
    headers,
    tls: Object.fromEntries(Object.entries(tls).filter(([, value]) => value !== undefined)),
  }
}

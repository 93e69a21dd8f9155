import type { V1Namespace, V1Secret, V1ServiceAccount } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { KubernetesClient } from '../kubernetes/client.ts'
import { createListWatch, type ListWatch } from '../kubernetes/list-watch.ts'
import { optInLabel, type PullSecretIndex } from './pull-secret-index.ts'

/**
 * The three watches that keep the index true. Secrets are asked for by the one name, never by
 * label: that way a role can allow it for this name alone, in all namespaces (the API server takes
 * a `metadata.name` field selector for the name of the request: kubernetes/apiserver
 * pkg/endpoints/request/requestinfo.go), and no other Secret ever reaches this process.
 */
export function createWatches(options: {
  client: KubernetesClient
  index: PullSecretIndex
  secretName: string
  logger: Logger
  metrics: Registry
}): ListWatch[] {
  const { index, secretName, ...shared } = options
  return [
    createListWatch<V1Namespace>({
      ...shared,
      name: 'namespaces',
      path: '/api/v1/namespaces',
      query: { labelSelector: optInLabel },
      handler: index.namespaces,
    }),
    createListWatch<V1Secret>({
      ...shared,
      name: 'secrets',
      path: '/api/v1/secrets',
      query: { fieldSelector: `metadata.name=${secretName}` },
      handler: index.secrets,
    }),
    createListWatch<V1ServiceAccount>({
      ...shared,
      name: 'serviceaccounts',
      path: '/api/v1/serviceaccounts',
      query: {},
      handler: index.serviceAccounts,
    }),
  ]
}

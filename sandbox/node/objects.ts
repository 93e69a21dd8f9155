import {
  CoreV1Api,
  type KubeConfig,
  type V1ConfigMap,
  type V1Secret,
  type V1Service,
} from '@kubernetes/client-node'
import { type Followed, follow } from './follow.ts'
import type { Lookup } from './pod/environment.ts'

/** What the pods of a namespace may refer to, kept current. */
export interface NamespaceObjects extends Lookup {
  services(): V1Service[]
  stop(): Promise<void>
}

/** Follows the ConfigMaps, Secrets and Services of a namespace. */
export async function followObjects(
  kubeConfig: KubeConfig,
  namespace: string,
): Promise<NamespaceObjects> {
  const core = kubeConfig.makeApiClient(CoreV1Api)
  const path = (kind: string) => `/api/v1/namespaces/${namespace}/${kind}`
  const configMaps: Followed<V1ConfigMap> = await follow({
    kubeConfig,
    path: path('configmaps'),
    list: () => core.listNamespacedConfigMap({ namespace }),
  })
  const secrets: Followed<V1Secret> = await follow({
    kubeConfig,
    path: path('secrets'),
    list: () => core.listNamespacedSecret({ namespace }),
  })
  const services: Followed<V1Service> = await follow({
    kubeConfig,
    path: path('services'),
    list: () => core.listNamespacedService({ namespace }),
  })
  return {
    configMap(name) {
      const found = configMaps.named(name)
      return found && { ...decode(found.data, 'utf8'), ...decode(found.binaryData, 'base64') }
    },
    secret(name) {
      const found = secrets.named(name)
      return found && decode(found.data, 'base64')
    },
    services: services.all,
    async stop() {
      await Promise.all([configMaps.stop(), secrets.stop(), services.stop()])
    },
  }
}

function decode(data: Record<string, string> = {}, encoding: 'utf8' | 'base64') {
  return Object.fromEntries(
    Object.entries(data).map(([key, value]) => [key, Buffer.from(value, encoding)]),
  )
}

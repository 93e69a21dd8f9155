import {
  CoreV1Api,
  DiscoveryV1Api,
  type KubeConfig,
  type V1EndpointSlice,
  type V1Service,
} from '@kubernetes/client-node'
import { realAddress } from '../addresses.ts'
import { follow } from '../follow.ts'
import { backendsOf } from './backends.ts'

export interface Backend {
  address: string
  port: number
}

/** Plays kube-proxy: which pod a new connection to a Service goes to. */
export interface ServiceNetwork {
  /**
   * In turn over the Service's backends; undefined where it has none. `service` is
   * `namespace/name`.
   */
  pick(service: string, port: number): Backend | undefined
  /** The `namespace/name` of the Service that has this ClusterIP. */
  serviceAt(clusterIP: string): string | undefined
  stop(): Promise<void>
}

/**
 * Follows the Services and EndpointSlices of the cluster. What they say holds `delayMs` later for
 * connections, as it takes a moment in a cluster too until every node's rules follow.
 */
export async function followServices(
  kubeConfig: KubeConfig,
  { delayMs = 200 }: { delayMs?: number } = {},
): Promise<ServiceNetwork> {
  const core = kubeConfig.makeApiClient(CoreV1Api)
  const discovery = kubeConfig.makeApiClient(DiscoveryV1Api)
  const services = await follow<V1Service>({
    kubeConfig,
    path: '/api/v1/services',
    list: () => core.listServiceForAllNamespaces(),
  })
  const slices = await follow<V1EndpointSlice>({
    kubeConfig,
    path: '/apis/discovery.k8s.io/v1/endpointslices',
    list: () => discovery.listEndpointSliceForAllNamespaces(),
  })
  const timers = new Set<NodeJS.Timeout>()
  let inForce = { services: services.all(), slices: slices.all() }
  let turn = 0

  function takeEffect(): void {
    const then = { services: services.all(), slices: slices.all() }
    const timer = setTimeout(() => {
      timers.delete(timer)
      inForce = then
    }, delayMs)
    timers.add(timer)
  }
  services.onChange(takeEffect)
  slices.onChange(takeEffect)

  return {
    pick(name, port) {
      const service = inForce.services.find(known => keyOf(known) === name)
      const backends = service ? backendsOf(service, port, inForce.slices) : []
      const backend = backends[turn++ % backends.length]
      return backend && { ...backend, address: realAddress(backend.address) }
    },
    serviceAt(clusterIP) {
      const service = inForce.services.find(({ spec }) => spec?.clusterIP === clusterIP)
      return service && keyOf(service)
    },
    async stop() {
      for (const timer of timers) clearTimeout(timer)
      await Promise.all([services.stop(), slices.stop()])
    },
  }
}

function keyOf({ metadata }: V1Service): string {
  return `${metadata?.namespace}/${metadata?.name}`
}

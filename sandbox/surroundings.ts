import { type BluemixEnvironment, startBluemixEnvironment } from './bluemix/environment.ts'
import { type ControlPlane, startControlPlane } from './control-plane.ts'
import type { Parts } from './parts.ts'
import { type Registry, startRegistry } from './registry.ts'

/** What is there before pullpass comes. */
export interface Surroundings {
  readonly controlPlane: ControlPlane
  readonly environment: BluemixEnvironment
  readonly registry: Registry
}

/** Starts a Bluemix Dedicated environment with its registry, and a cluster. `tell`: before each part. */
export async function startSurroundings(
  { begun }: Parts,
  tell: (what: string) => void,
): Promise<Surroundings> {
  tell('the Bluemix Dedicated environment and its registry')
  const environment = await begun(startBluemixEnvironment())
  const registry = await begun(startRegistry(environment.registryAuth))
  environment.setRegistryUpstream(registry.url)
  tell('a Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager')
  const controlPlane = await begun(startControlPlane({ controllerManager: true }))
  return { controlPlane, environment, registry }
}

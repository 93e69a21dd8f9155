import { createOrganizationsInUse } from '../controller/organizations.ts'
import { cleanUp } from '../controller/orphans.ts'
import { createMintedTokens, createRevokeTokens } from '../issuer/inventory.ts'
import { createDependencies, readClusterId, type ServiceOptions } from '../service.ts'

/**
 * Takes back what was made for namespaces that are not opted in any more, standalone a running
 * pullpass or without one. Resolves to what was done, by namespace.
 *
 * @throws TokenError, KubernetesError.
 */
export async function cleanUpOnce(options: ServiceOptions): Promise<string[]> {
  const dependencies = createDependencies({ ...options, standalone: true })
  const { issuer, watches, client } = dependencies
  try {
    for (const watch of watches) watch.start()
    issuer.start()
    await Promise.all(watches.map(watch => watch.whenSynced()))
    const cluster = await readClusterId(dependencies)
    // Only the leader changes the note.
    const note = { read: dependencies.organizationsAnnotation.read, write: async () => {} }
    const organizationsInUse = createOrganizationsInUse(dependencies.config.bluemix, note)
    const revokeTokens = createRevokeTokens({
      ...dependencies,
      cluster,
      list: (_namespace, organization, signal) => issuer.list(organization, signal),
      minted: createMintedTokens(),
      mayHold: organizationsInUse.mayHold,
      assertLeading: () => {},
    })
    const options = { ...dependencies, cluster, revokeTokens, organizationsInUse }
    return await cleanUp(options, new AbortController().signal)
  } finally {
    await Promise.all(watches.map(watch => watch.stop()))
    await Promise.all([issuer.close(), client.close()])
  }
}

import { cleanUp } from '../keeper/clean-up.ts'
import { createOrganizationsInUse } from '../keeper/organizations-in-use.ts'
import { createParts, type PartsOptions, readClusterId } from '../parts.ts'
import { createMintedTokens, createRevokeTokens } from '../registry-token/revoke-tokens.ts'

/**
 * Takes back what was made for namespaces that are not opted in any more, beside a running
 * pullpass or without one. Resolves to what was done, by namespace.
 *
 * @throws TokenError, KubernetesError.
 */
export async function cleanUpOnce(options: PartsOptions): Promise<string[]> {
  const parts = createParts({ ...options, beside: true })
  const { issuer, watches, client } = parts
  try {
    for (const watch of watches) watch.start()
    issuer.start()
    await Promise.all(watches.map(watch => watch.whenSynced()))
    const cluster = await readClusterId(parts)
    // Only the leader changes the note.
    const note = { read: parts.organizationsNote.read, write: async () => {} }
    const organizationsInUse = createOrganizationsInUse(parts.config.bluemix, note)
    const revokeTokens = createRevokeTokens({
      ...parts,
      cluster,
      list: (_namespace, organization, signal) => issuer.list(organization, signal),
      minted: createMintedTokens(),
      mayHold: organizationsInUse.mayHold,
      assertLeading: () => {},
    })
    const options = { ...parts, cluster, revokeTokens, organizationsInUse }
    return await cleanUp(options, new AbortController().signal)
  } finally {
    await Promise.all(watches.map(watch => watch.stop()))
    await Promise.all([issuer.close(), client.close()])
  }
}

import { cleanUp } from '../keeper/clean-up.ts'
import { createParts, type PartsOptions, readClusterId } from '../parts.ts'
import { createRevokeTokens } from '../registry-token/revoke-tokens.ts'

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
    const deed = { ...parts, cluster, assertLeading: () => {} }
    const revokeTokens = createRevokeTokens(deed)
    const organizations = parts.config.bluemix
    return await cleanUp({ ...deed, revokeTokens, organizations }, new AbortController().signal)
  } finally {
    await Promise.all(watches.map(watch => watch.stop()))
    await Promise.all([issuer.close(), client.close()])
  }
}

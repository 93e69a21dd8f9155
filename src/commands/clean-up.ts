import type { Logger } from 'pino'
import {
  createOrganizationsInUse,
  type Note,
  type OrganizationsInUse,
} from '../controller/organizations.ts'
import { cleanUp } from '../controller/orphans.ts'
import type { OrganizationRules } from '../controller/plan.ts'
import { createMintedTokens, createRevokeTokens } from '../controller/revoke-tokens.ts'
import { type TokenIssuer, tokenIssuer } from '../controller/token-issuer.ts'
import type { Issuer } from '../issuer/issuer.ts'
import { type KubernetesClient, readClusterId } from '../kubernetes/client.ts'
import type { ListWatch } from '../kubernetes/list-watch.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import type { PullSecretRules } from '../pull-secret/pull-secret.ts'
import type { SecretStore } from '../pull-secret/store.ts'

interface CleanUpDependencies {
  client: KubernetesClient
  watches: ListWatch[]
  index: PullSecretIndex
  store: SecretStore
  issuer: Issuer
  organizationsAnnotation: Note
  logger: Logger
}

interface CleanUpSettings {
  rules: PullSecretRules
  organizations: OrganizationRules
}

/**
 * Revokes the tokens and deletes the Secrets of namespaces that are not opted in, beside a running
 * pullpass or without one. Resolves to a line for each namespace.
 *
 * @throws TokenError, KubernetesError.
 */
export async function cleanUpOnce(
  dependencies: CleanUpDependencies,
  { rules, organizations }: CleanUpSettings,
): Promise<string[]> {
  const { client, watches, index, store, organizationsAnnotation, logger } = dependencies
  const issuer = tokenIssuer(dependencies.issuer)
  try {
    for (const watch of watches) watch.start()
    dependencies.issuer.start()
    await Promise.all(watches.map(watch => watch.whenSynced()))
    const cluster = await readClusterId({ client, logger })
    // Only the leader changes the annotation.
    const note = { read: organizationsAnnotation.read, write: async () => {} }
    const organizationsInUse = createOrganizationsInUse(organizations, note)
    const revokeTokens = createRevoke({ issuer, organizationsInUse, logger }, cluster)
    return await cleanUp(
      { index, store, issuer, organizationsInUse, revokeTokens, cluster, rules, logger },
      new AbortController().signal,
    )
  } finally {
    await Promise.all(watches.map(watch => watch.stop()))
    await Promise.all([dependencies.issuer.close(), client.close()])
  }
}

interface RevokeDependencies {
  issuer: TokenIssuer
  organizationsInUse: OrganizationsInUse
  logger: Logger
}

function createRevoke({ issuer, organizationsInUse, logger }: RevokeDependencies, cluster: string) {
  return createRevokeTokens({
    issuer,
    list: (_namespace, organization, signal) => issuer.list(organization, signal),
    minted: createMintedTokens(),
    mayHold: organizationsInUse.mayHold,
    cluster,
    assertLeading: () => {},
    logger,
  })
}

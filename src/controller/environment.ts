import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { type GuardedIssuer, guardIssuer } from '../issuer/guarded-issuer.ts'
import { createInventory, type Inventory } from '../issuer/inventory.ts'
import type { Issuer } from '../issuer/issuer.ts'
import type { PullSecretIndex } from '../pull-secret/cache.ts'
import { createIdentity, type Identity } from './identity.ts'
import { createOrganizationsInUse, type Note, type OrganizationsInUse } from './organizations.ts'
import type { OrganizationRules } from './plan.ts'

/** The Bluemix environment as the controller sees it. */
export interface Environment {
  issuer: GuardedIssuer
  inventory: Inventory
  organizationsInUse: OrganizationsInUse
  identity: Identity
}

interface Dependencies {
  issuer: Issuer
  index: PullSecretIndex
  /** Annotations of the Lease. */
  notes: { organizations: Note; marks: Note }
  /** Throws unless this process leads. */
  assertLeading: () => void
  now: () => Date
  logger: Logger
  metrics: Registry
}

export interface EnvironmentSettings {
  /** What our descriptions begin with. */
  cluster: string
  organizations: OrganizationRules
  mintsPerMinute: number
  listEveryMs: number
}

/** Builds it; nothing is requested yet. */
export function createEnvironment(
  dependencies: Dependencies,
  settings: EnvironmentSettings,
): Environment {
  const { index, notes, assertLeading, now, logger, metrics } = dependencies
  const { cluster, listEveryMs, mintsPerMinute } = settings
  const issuer = guardIssuer({ issuer: dependencies.issuer }, { mintsPerMinute })
  const inventory = createInventory(
    { issuer, holds: () => tokensIn(index), now, logger, metrics },
    { cluster },
  )
  const organizationsInUse = createOrganizationsInUse(settings.organizations, notes.organizations)
  const identity = createIdentity(
    {
      inventory,
      issuer,
      note: notes.marks,
      organizationsInUse: organizationsInUse.all,
      assertLeading,
      now,
      logger,
      metrics,
    },
    { cluster, listEveryMs },
  )
  return { issuer, inventory, organizationsInUse, identity }
}

/** What Secrets of ours hold. */
function tokensIn({ secrets }: PullSecretIndex): { hashes: Set<string>; ids: Set<string> } {
  const held = { hashes: new Set<string>(), ids: new Set<string>() }
  for (const namespace of secrets.keys()) {
    const token = secrets.get(namespace)?.token
    if (token === undefined) continue
    held.hashes.add(token.hash)
    if (token.id !== undefined) held.ids.add(token.id)
  }
  return held
}

import { setTimeout as sleep } from 'node:timers/promises'
import type { KubeConfig } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { createBluemixIssuer } from './bluemix/token-issuer.ts'
import { createCertificateSource } from './certificate/certificate-source.ts'
import type { Config } from './config.ts'
import { createKeeper, type Keeper } from './keeper/keep-pull-secrets.ts'
import { createKubernetesClient } from './kubernetes/client.ts'
import { createLeader } from './kubernetes/leader.ts'
import { createLeaseNote } from './kubernetes/lease-note.ts'
import { createTellProblem } from './kubernetes/problem-events.ts'
import { createMutatePod, type MutatePod } from './mutate-pod.ts'
import { createIsOptedIn } from './pull-secret/opted-in.ts'
import type { PullSecretRules } from './pull-secret/pull-secret.ts'
import { createPullSecretIndex } from './pull-secret/pull-secret-index.ts'
import { createSecretMissing } from './pull-secret/secret-missing.ts'
import { createSecretStore } from './pull-secret/secret-store.ts'
import { createWatches } from './pull-secret/watches.ts'
import { guardIssuer } from './registry-token/guard-issuer.ts'
import { tellListing } from './registry-token/tell-listing.ts'

export interface PartsOptions {
  config: Config
  kubeConfig: KubeConfig
  /** This process, unlike every other. */
  identity: string
  logger: Logger
  metrics: Registry
  /** Asks the environment without leading: for what a person does beside the running service. */
  beside?: boolean
}

const now = () => new Date()

/** The parts that stand by themselves. */
export type Parts = ReturnType<typeof createParts>

/** Chooses them and passes them to each other; nothing is started yet. */
export function createParts(options: PartsOptions) {
  const { config, kubeConfig, identity, logger, metrics, beside = false } = options
  const { kubernetes, leader, bluemix, registry } = config
  const client = createKubernetesClient({ kubeConfig, timeoutMs: kubernetes.timeoutMs, metrics })
  const shared = { client, namespace: kubernetes.namespace, identity, logger, metrics }
  const rules: PullSecretRules = {
    secretName: config.pullSecret.name,
    registryHost: registry.host,
    email: config.pullSecret.email,
  }
  const index = createPullSecretIndex(rules)
  const { iam, caFile } = bluemix
  const settings = {
    ...bluemix,
    iam,
    caFile,
    registryUrl: registry.url,
    registryHost: registry.host,
  }
  const lease = { ...shared, name: leader.leaseName, annotation: 'pullpass.io/logins' }
  const leadership = createLeader({ ...lease, ...leader })
  const permitted = () => beside || leadership.leading()
  const note = createLeaseNote(lease)
  return {
    config,
    logger,
    metrics,
    client,
    rules,
    index,
    tellProblem: createTellProblem(shared),
    store: createSecretStore(client, rules.secretName),
    watches: createWatches({ ...shared, index, secretName: rules.secretName }),
    certificate: createCertificateSource({ ...shared, settings: config.certificate, now }),
    leader: leadership,
    issuer: createBluemixIssuer({ settings, logger, metrics, note, permitted }),
  }
}

/** `cluster`: the UID of kube-system, which can be asked for only when the API server is there. */
export function createKeeperOf(parts: Parts, cluster: string): Keeper {
  const { keeper, bluemix } = parts.config
  return createKeeper({
    ...parts,
    ...keeper,
    cluster,
    issuer: tellListing(guardIssuer(parts.issuer, keeper), parts),
    leadership: parts.leader,
    organizations: bluemix,
    now,
    rotateAfterMs: keeper.rotateAfterSeconds && keeper.rotateAfterSeconds * 1000,
    rotateGraceMs: keeper.rotateGraceSeconds * 1000,
    revokeGraceMs: keeper.revokeGraceSeconds * 1000,
    verifyEveryMs: keeper.verifyEverySeconds * 1000,
    sweepAgainMs: parts.config.leader.leaseSeconds * 1000,
  })
}

/** The admission of a pod, on what the watches know and with the keeper to ask. */
export function createMutatePodOf(parts: Parts, keeper: Keeper): MutatePod {
  const { config, index, store, rules, logger, metrics } = parts
  const { waitMs } = config.admission
  return createMutatePod({
    index,
    secretMissing: createSecretMissing({ index, keeper, waitMs }),
    isOptedIn: createIsOptedIn({ index, store }),
    rules: { ...rules, releaseNamespace: config.kubernetes.namespace },
    logger,
    metrics,
  })
}

/** The UID of kube-system stands for the cluster; asked for until the API server gives it. */
export async function readClusterId({ store, logger }: Parts): Promise<string> {
  for (;;) {
    try {
      const namespace = await store.readNamespace('kube-system')
      if (namespace?.metadata?.uid !== undefined) return namespace.metadata.uid
    } catch (error) {
      logger.warn({ problem: (error as Error).message }, 'cannot tell which cluster this is')
    }
    await sleep(1000)
  }
}

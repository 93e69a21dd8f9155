import { setTimeout as sleep } from 'node:timers/promises'
import type { KubeConfig } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { type BluemixSettings, createBluemixIssuer } from './bluemix/bluemix-issuer.ts'
import { createCertificateSource } from './certificate/source.ts'
import type { Config } from './config/config.ts'
import { type Controller, createController } from './controller/controller.ts'
import { buildOperationsServer, createHealth, type State } from './health.ts'
import { guardIssuer, reportListing } from './issuer/guarded-issuer.ts'
import { createKubernetesClient } from './kubernetes/client.ts'
import { createReportProblem, watchProblems } from './kubernetes/events.ts'
import { createLeader } from './kubernetes/leader-election.ts'
import { createLeaseAnnotation } from './kubernetes/lease.ts'
import { createServerClock } from './kubernetes/server-clock.ts'
import { createPullSecretIndex, createWatches, neverServedWith } from './pull-secret/cache.ts'
import type { PullSecretRules } from './pull-secret/pull-secret.ts'
import { createSecretStore } from './pull-secret/store.ts'
import { createIsOptedIn, createSecretMissing } from './webhook/await-secret.ts'
import { type HttpsServer, listen, replaceCertificate, stopServer } from './webhook/https-server.ts'
import { createMutatePod, type MutatePod } from './webhook/mutate-pod.ts'
import { buildWebhookServer } from './webhook/server.ts'

interface App {
  /** Resolves when reviews are answered; until then /readyz tells what is awaited. */
  start(): Promise<void>
  /** Not ready, keeps answering for the drain time, then ends; no review is cut off. */
  stop(): Promise<void>
}

/** What has come up so far. */
interface Running {
  webhook?: HttpsServer
  controller?: Controller
}

/** For a review that is still being answered when the drain time is over. */
const graceMs = 10_000

/** Joins the dependencies, and puts their beginning and their end in order. */
export function createApp(options: Omit<ServiceOptions, 'metrics'>): App {
  const metrics = new Registry()
  collectDefaultMetrics({ register: metrics })
  const dependencies = createDependencies({ ...options, metrics })
  const { shutdown } = dependencies.config
  let state: State = 'starting'
  const running: Running = {}
  const health = createHealth(dependencies, () => ({ state, controller: running.controller }))
  reportWarnings(dependencies, health.warnings)
  const operations = buildOperationsServer(health)
  return {
    start: async () => {
      await listen(operations, dependencies.config.operations)
      await run(dependencies, running, () => state)
      if (state === 'starting') state = 'serving'
      dependencies.logger.info('serving')
    },
    stop: async () => {
      state = 'draining'
      dependencies.logger.info({ drainMs: shutdown.drainMs }, 'draining')
      await Promise.all([sleep(shutdown.drainMs), handOver(dependencies, running.controller)])
      if (running.webhook) await stopServer(running.webhook, graceMs)
      await Promise.all([
        dependencies.certificate.stop(),
        ...dependencies.watches.map(watch => watch.stop()),
      ])
      await Promise.all([dependencies.issuer.close(), operations.close()])
      await dependencies.client.close()
    },
  }
}

/** What lasts is an event of the release namespace too. */
function reportWarnings({ config, reportProblem }: Dependencies, problems: () => string[]): void {
  const { namespace } = config.kubernetes
  const release = { kind: 'Namespace', name: namespace, namespace }
  watchProblems({ problems, tell: note => reportProblem(release, 'PullpassProblem', note) })
}

/**
 * In this order: who answers, who knows, who acts. Before all of it is there, reviews are told to
 * come again, which the API server does; no answer at all would be a failed call.
 */
async function run(
  dependencies: Dependencies,
  running: Running,
  state: () => State,
): Promise<void> {
  const { watches, issuer, leader, certificate } = dependencies
  for (const watch of watches) watch.start()
  issuer.start()
  await certificate.start()
  const answering = Promise.withResolvers<MutatePod>()
  running.webhook = await openWebhook(dependencies, {
    mutatePod: (review, budgetMs) => answering.promise.then(mutate => mutate(review, budgetMs)),
    state: () => (running.controller === undefined ? 'starting' : state()),
  })
  await Promise.all(watches.map(watch => watch.whenSynced()))
  const controller = createControllerOf(dependencies, await readClusterId(dependencies))
  controller.start()
  leader.start()
  answering.resolve(createMutatePodOf(dependencies, controller))
  running.controller = controller
}

async function openWebhook(
  { certificate, config, logger, metrics }: Dependencies,
  answering: { mutatePod: MutatePod; state: () => State },
): Promise<HttpsServer> {
  const current = certificate.current()
  const webhook = buildWebhookServer({ ...answering, certificate: current, logger, metrics })
  certificate.onChange(() => replaceCertificate(webhook, certificate.current()))
  await listen(webhook, config.admission)
  return webhook
}

/** What another replica is to go on with is left in order before the lease is given back. */
async function handOver(
  { leader }: Dependencies,
  controller: Controller | undefined,
): Promise<void> {
  await controller?.stop()
  await leader.release()
}

export interface ServiceOptions {
  config: Config
  kubeConfig: KubeConfig
  /** This process, unlike every other. */
  identity: string
  logger: Logger
  metrics: Registry
  /** Asks the environment without leading: for what a person does standalone the running service. */
  standalone?: boolean
}

/** The dependencies that stand by themselves. */
export type Dependencies = ReturnType<typeof createDependencies>

/** Chooses them and passes them to each other; nothing is started yet. */
export function createDependencies(options: ServiceOptions) {
  const { config, kubeConfig, identity, logger, metrics, standalone = false } = options
  const { kubernetes, leader, registry } = config
  const { timeoutMs, namespace } = kubernetes
  const clock = createServerClock({ logger, metrics })
  const client = createKubernetesClient({ kubeConfig, timeoutMs, metrics, clock })
  const shared = { client, namespace, identity, logger, metrics }
  const rules: PullSecretRules = {
    secretName: config.pullSecret.name,
    registryHost: registry.host,
    email: config.pullSecret.email,
  }
  const index = createPullSecretIndex(rules, neverServedWith(kubernetes.namespace))
  const settings = issuerSettings(config)
  const lease = { ...shared, name: leader.leaseName, annotation: 'pullpass.io/logins' }
  const leadership = createLeader({ ...lease, ...leader })
  const organizationsAnnotation = createLeaseAnnotation({
    ...lease,
    annotation: 'pullpass.io/organizations',
  })
  const mayLogIn = () => standalone || leadership.leading()
  const note = createLeaseAnnotation(lease)
  const now = () => clock.now().getTime()
  return {
    config,
    logger,
    metrics,
    client,
    clock,
    rules,
    index,
    reportProblem: createReportProblem(shared),
    store: createSecretStore(client, rules.secretName),
    watches: createWatches({ ...shared, index, secretName: rules.secretName }),
    certificate: createCertificateSource({ ...shared, settings: config.certificate, clock }),
    leader: leadership,
    organizationsAnnotation,
    issuer: createBluemixIssuer({ settings, logger, metrics, note, mayLogIn, now }),
  }
}

function issuerSettings({ bluemix, registry }: Config): BluemixSettings {
  const { iam, caFile } = bluemix
  return { ...bluemix, iam, caFile, registryUrl: registry.url, registryHost: registry.host }
}

/** `cluster`: the UID of kube-system, which can be asked for only when the API server is there. */
function createControllerOf(dependencies: Dependencies, cluster: string): Controller {
  const { controller, bluemix } = dependencies.config
  return createController({
    ...dependencies,
    ...controller,
    cluster,
    issuer: reportListing(guardIssuer(dependencies.issuer, controller), dependencies),
    leadership: dependencies.leader,
    organizations: bluemix,
    now: dependencies.clock.now,
    rotateAfterMs: controller.rotateAfterSeconds && controller.rotateAfterSeconds * 1000,
    rotateGraceMs: controller.rotateGraceSeconds * 1000,
    revokeGraceMs: controller.revokeGraceSeconds * 1000,
    verifyEveryMs: controller.verifyEverySeconds * 1000,
    sweepAgainMs: dependencies.config.leader.leaseSeconds * 1000,
  })
}

/** The admission of a pod, on what the watches know and with the controller to ask. */
function createMutatePodOf(dependencies: Dependencies, controller: Controller): MutatePod {
  const { config, index, store, rules, logger, metrics } = dependencies
  const { waitMs } = config.admission
  return createMutatePod({
    index,
    secretMissing: createSecretMissing({ index, controller, waitMs }),
    isOptedIn: createIsOptedIn({ index, store }),
    rules: { ...rules, releaseNamespace: config.kubernetes.namespace },
    logger,
    metrics,
  })
}

/** The UID of kube-system stands for the cluster; asked for until the API server gives it. */
export async function readClusterId({ store, logger }: Dependencies): Promise<string> {
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

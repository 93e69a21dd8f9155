import { setTimeout as sleep } from 'node:timers/promises'
import type { KubeConfig } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { createBluemixIssuer } from './bluemix/bluemix-issuer.ts'
import { createCertificateSource } from './certificate/source.ts'
import type { Config } from './config/config.ts'
import { type Controller, createController } from './controller/controller.ts'
import { createEnvironment, type Environment } from './controller/environment.ts'
import type { Note } from './controller/organizations.ts'
import { createFailureStore } from './failure.ts'
import { buildOperationsServer, createHealth, type Problem, type State } from './health.ts'
import type { Issuer } from './issuer/issuer.ts'
import { createKubernetesClient, readClusterId } from './kubernetes/client.ts'
import { createReportProblem, eventReason, watchProblems } from './kubernetes/events.ts'
import { createLeader } from './kubernetes/leader-election.ts'
import { createLeaseAnnotation } from './kubernetes/lease.ts'
import { createServerClock } from './kubernetes/server-clock.ts'
import { neverServedWith } from './names.ts'
import {
  bluemixSettings,
  controllerSettings,
  environmentSettings,
  pullSecretRules,
} from './part-settings.ts'
import { createPullSecretIndex, createWatches } from './pull-secret/cache.ts'
import { createSecretStore } from './pull-secret/store.ts'
import { createIsOptedIn, createSecretMissing } from './webhook/await-secret.ts'
import { type HttpsServer, listen, replaceCertificate, stopServer } from './webhook/https-server.ts'
import { createMutatePod, type MutatePod } from './webhook/mutate-pod.ts'
import { buildWebhookServer } from './webhook/server.ts'

interface ServiceDependencies {
  kubeConfig: KubeConfig
  logger: Logger
  /** Default: Bluemix Dedicated. */
  createIssuer?: CreateIssuer
}

/** Makes the issuer of registry tokens. */
type CreateIssuer = (dependencies: IssuerDependencies, config: Config) => Issuer

interface IssuerDependencies {
  logger: Logger
  metrics: Registry
  /** A text on the Lease, which survives a restart. */
  note: Note
  /** False: the issuer sends no login, because another replica leads. */
  mayLogIn: () => boolean
  /** Milliseconds since 1970. */
  now: () => number
}

/** The issuer of this program. */
const createDefaultIssuer: CreateIssuer = ({ logger, metrics, note, mayLogIn, now }, config) =>
  createBluemixIssuer({ logger, metrics, note, mayLogIn, now }, bluemixSettings(config))

interface ServiceSettings {
  config: Config
  /** Unique for each process. */
  identity: string
}

interface App {
  /** Resolves when reviews are answered. Until then /readyz says what is missing. */
  start(): Promise<void>
  /** Not ready, answers for the drain time, then ends; no review is cut off. */
  stop(): Promise<void>
}

/** What has started so far. */
interface Running {
  webhook?: HttpsServer
  controller?: Controller
}

/** For a review that waits for its answer when the drain time ends. */
const graceMs = 10_000

/** Builds the parts, and starts and stops them in order. */
export function createApp(
  { kubeConfig, logger, createIssuer = createDefaultIssuer }: ServiceDependencies,
  { config, identity }: ServiceSettings,
): App {
  const metrics = new Registry()
  collectDefaultMetrics({ register: metrics })
  const parts = createParts(
    { kubeConfig, logger, metrics, createIssuer },
    { config, identity, standalone: false },
  )
  let state: State = 'starting'
  const running: Running = {}
  const health = createHealthOf(parts, () => ({ state }))
  reportProblems(parts, health.problems)
  const operations = buildOperationsServer(health.operations)
  return {
    start: async () => {
      await listen(operations, config.operations)
      await run(parts, running, () => state)
      if (state === 'starting') state = 'serving'
      logger.info('serving')
    },
    stop: async () => {
      const { drainMs } = config.shutdown
      state = 'draining'
      logger.info({ drainMs }, 'draining')
      await Promise.all([sleep(drainMs), handOver(parts, running.controller)])
      if (running.webhook) await stopServer(running.webhook, graceMs)
      await Promise.all([parts.certificate.stop(), ...parts.watches.map(watch => watch.stop())])
      await Promise.all([parts.issuer.close(), operations.close()])
      await parts.client.close()
    },
  }
}

function createHealthOf(
  { watches, certificate, clock, failureStore, leader, logger, metrics }: Parts,
  now: () => { state: State },
) {
  return createHealth({ watches, certificate, clock, failureStore, leader, logger, metrics, now })
}

/** A problem that lasts is also an event in the release namespace. */
function reportProblems({ config, reportProblem }: Parts, problems: () => Problem[]): void {
  const { namespace } = config.kubernetes
  const release = { kind: 'Namespace', name: namespace, namespace }
  const report = ({ code, message }: Problem) => reportProblem(release, eventReason(code), message)
  watchProblems({ problems, report })
}

/**
 * In this order: the webhook answers, the cache knows, the controller acts. Until all are ready, the
 * webhook answers 503, and the API server asks again; no answer at all would be a failed call.
 */
async function run(parts: Parts, running: Running, state: () => State): Promise<void> {
  const { config, watches, issuer, leader, certificate, client, logger } = parts
  for (const watch of watches) watch.start()
  issuer.start()
  await certificate.start()
  const ready = Promise.withResolvers<MutatePod>()
  running.webhook = await openWebhook(
    parts,
    (review, budgetMs) => ready.promise.then(mutatePod => mutatePod(review, budgetMs)),
    () => (running.controller === undefined ? 'starting' : state()),
  )
  await Promise.all(watches.map(watch => watch.whenSynced()))
  const cluster = config.clusterName ?? (await readClusterId({ client, logger }))
  const controller = createControllerOf(parts, cluster)
  controller.start()
  leader.start()
  ready.resolve(createMutatePodOf(parts, controller))
  running.controller = controller
}

async function openWebhook(
  { certificate, config, logger, metrics }: Parts,
  mutatePod: MutatePod,
  state: () => State,
): Promise<HttpsServer> {
  const webhook = buildWebhookServer({
    mutatePod,
    state,
    certificate: certificate.current(),
    logger,
    metrics,
  })
  certificate.onChange(() => replaceCertificate(webhook, certificate.current()))
  await listen(webhook, config.admission)
  return webhook
}

/** The running steps end before another replica can lead. */
async function handOver({ leader }: Parts, controller: Controller | undefined): Promise<void> {
  await controller?.stop()
  await leader.release()
}

interface PartsDependencies {
  kubeConfig: KubeConfig
  logger: Logger
  metrics: Registry
  createIssuer?: CreateIssuer
}

interface PartsSettings {
  config: Config
  /** Unique for each process. */
  identity: string
  /** Logs in without leading: for a command that runs beside the service or without it. */
  standalone: boolean
}

/** All but the webhook and the controller. */
type Parts = ReturnType<typeof createParts>

/** Creates the parts and passes them to each other. Starts nothing. */
export function createParts(
  { kubeConfig, logger, metrics, createIssuer = createDefaultIssuer }: PartsDependencies,
  { config, identity, standalone }: PartsSettings,
) {
  const { namespace, timeoutMs } = config.kubernetes
  const rules = pullSecretRules(config)
  const { secretName } = rules
  const clock = createServerClock({ logger, metrics })
  const client = createKubernetesClient({ kubeConfig, metrics, clock }, { timeoutMs })
  const index = createPullSecretIndex(rules, neverServedWith(namespace))
  const { leaseName: name, leaseSeconds, renewSeconds } = config.leader
  const lease = { namespace, name, identity, leaseSeconds, renewSeconds }
  const leader = createLeader({ client, logger, metrics }, lease)
  const noteOf = (annotation: string) =>
    createLeaseAnnotation({ client }, { namespace, name, annotation })
  const note = noteOf('pullpass.io/logins')
  const now = () => clock.now().getTime()
  const mayLogIn = () => standalone || leader.leading()
  return {
    config,
    logger,
    metrics,
    client,
    clock,
    rules,
    index,
    leader,
    failureStore: createFailureStore(),
    notes: notesOf(noteOf),
    reportProblem: createReportProblem({ client, logger }, { identity }),
    store: createSecretStore(client, secretName),
    watches: createWatches({ client, index, logger, metrics }, { secretName }),
    certificate: createCertificateSource(
      { client, clock, logger, metrics },
      { certificate: config.certificate, namespace, identity },
    ),
    issuer: createIssuer({ logger, metrics, note, mayLogIn, now }, config),
  }
}

/** Texts on the Lease that the next leader needs. */
function notesOf(noteOf: (annotation: string) => Note) {
  return { organizations: noteOf('pullpass.io/organizations'), marks: noteOf('pullpass.io/marks') }
}

/** `cluster`: the name of the cluster in the descriptions of its tokens. */
function createControllerOf(parts: Parts, cluster: string): Controller {
  const { config, index, store, leader, failureStore, reportProblem, clock, logger, metrics } =
    parts
  const environment = createEnvironmentOf(parts, cluster)
  return createController(
    {
      index,
      store,
      leadership: leader,
      problems: { store: failureStore, report: reportProblem },
      environment,
      now: clock.now,
      logger,
      metrics,
    },
    controllerSettings(config, cluster),
  )
}

function createEnvironmentOf(parts: Parts, cluster: string): Environment {
  const { config, issuer, index, notes, leader, clock, logger, metrics } = parts
  const assertLeading = () => {
    if (!leader.leading()) throw new Error('another replica leads')
  }
  return createEnvironment(
    { issuer, index, notes, assertLeading, now: clock.now, logger, metrics },
    environmentSettings(config, cluster),
  )
}

function createMutatePodOf(parts: Parts, controller: Controller): MutatePod {
  const { config, index, store, rules, failureStore, logger, metrics } = parts
  const { secretName, registryHost } = rules
  return createMutatePod(
    {
      index,
      secretMissing: createSecretMissing(
        { index, controller, failures: failureStore },
        { waitMs: config.admission.waitMs },
      ),
      isOptedIn: createIsOptedIn({ index, store }),
      logger,
      metrics,
    },
    { secretName, registryHost, releaseNamespace: config.kubernetes.namespace },
  )
}

import { setTimeout as sleep } from 'node:timers/promises'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { createHealth, type State } from './health.ts'
import type { Keeper } from './keeper/keep-pull-secrets.ts'
import {
  createKeeperOf,
  createMutatePodOf,
  createParts,
  type Parts,
  type PartsOptions,
  readClusterId,
} from './parts.ts'
import { type HttpsServer, replaceCertificate } from './server/https-server.ts'
import { listen } from './server/listen.ts'
import { buildOperationsServer } from './server/operations-server.ts'
import { stopServer } from './server/stop-server.ts'
import { buildWebhookServer } from './server/webhook-server.ts'

export interface App {
  /** Resolves when reviews are answered; until then /readyz tells what is awaited. */
  start(): Promise<void>
  /** Not ready, keeps answering for the drain time, then ends; no review is cut off. */
  stop(): Promise<void>
}

type MutatePod = ReturnType<typeof createMutatePodOf>
/** What has come up so far. */
interface Running {
  webhook?: HttpsServer
  keeper?: Keeper
}

/** For a review that is still being answered when the drain time is over. */
const graceMs = 10_000

/** Joins the parts, and puts their beginning and their end in order. */
export function createApp(options: Omit<PartsOptions, 'metrics'>): App {
  const metrics = new Registry()
  collectDefaultMetrics({ register: metrics })
  const parts = createParts({ ...options, metrics })
  const { shutdown } = parts.config
  let state: State = 'starting'
  const running: Running = {}
  const health = createHealth(parts, () => ({ state, keeper: running.keeper }))
  const operations = buildOperationsServer(health)
  return {
    start: async () => {
      await listen(operations, parts.config.operations)
      await run(parts, running, () => state)
      if (state === 'starting') state = 'serving'
      parts.logger.info('serving')
    },
    stop: async () => {
      state = 'draining'
      parts.logger.info({ drainMs: shutdown.drainMs }, 'draining')
      await Promise.all([sleep(shutdown.drainMs), handOver(parts, running.keeper)])
      if (running.webhook) await stopServer(running.webhook, graceMs)
      await Promise.all([parts.certificate.stop(), ...parts.watches.map(watch => watch.stop())])
      await Promise.all([parts.issuer.close(), operations.close()])
      await parts.client.close()
    },
  }
}

/**
 * In this order: who answers, who knows, who acts. Before all of it is there, reviews are told to
 * come again, which the API server does; no answer at all would be a failed call.
 */
async function run(parts: Parts, running: Running, state: () => State): Promise<void> {
  const { watches, issuer, leader, certificate } = parts
  for (const watch of watches) watch.start()
  issuer.start()
  await certificate.start()
  const answering = Promise.withResolvers<MutatePod>()
  running.webhook = await openWebhook(parts, {
    mutatePod: (review, budgetMs) => answering.promise.then(mutate => mutate(review, budgetMs)),
    state: () => (running.keeper === undefined ? 'starting' : state()),
  })
  await Promise.all(watches.map(watch => watch.whenSynced()))
  const keeper = createKeeperOf(parts, await readClusterId(parts))
  keeper.start()
  leader.start()
  answering.resolve(createMutatePodOf(parts, keeper))
  running.keeper = keeper
}

async function openWebhook(
  { certificate, config, logger, metrics }: Parts,
  answering: { mutatePod: MutatePod; state: () => State },
): Promise<HttpsServer> {
  const current = certificate.current()
  const webhook = buildWebhookServer({ ...answering, certificate: current, logger, metrics })
  certificate.onChange(() => replaceCertificate(webhook, certificate.current()))
  await listen(webhook, config.admission)
  return webhook
}

/** What another replica is to go on with is left in order before the lease is given back. */
async function handOver({ leader }: Parts, keeper: Keeper | undefined): Promise<void> {
  await keeper?.stop()
  await leader.release()
}

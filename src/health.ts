import Fastify, { type FastifyError, type FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'
import { framesOf } from './failure.ts'

export type State = 'starting' | 'serving' | 'draining'

export interface HealthDependencies {
  watches: readonly { synced(): boolean; problem(): string | undefined }[]
  certificate: { ready(): boolean; warnings(): string[] }
  clock: { problem(): string | undefined }
  issuer: { problem(): { code: string; message: string } | undefined }
  leader: { leading(): boolean; problem(): string | undefined }
  logger: Logger
  metrics: Registry
}

/**
 * What probes, metrics and events say of this replica. Only what keeps reviews from being answered
 * makes it unready; the rest is a warning.
 */
export function createHealth(
  dependencies: HealthDependencies,
  now: () => { state: State; controller: { problems(): string[] } | undefined },
): OperationsServerOptions {
  const { watches, certificate, clock, issuer, leader, logger, metrics } = dependencies
  countProblem(dependencies)
  return {
    logger,
    metrics,
    warnings: () => {
      const found = [
        ...certificate.warnings(),
        clock.problem(),
        // Only the leader asks the environment, and so knows.
        leader.leading() ? issuer.problem()?.message : undefined,
        ...watches.map(watch => watch.problem()),
        leader.problem(),
        ...(now().controller?.problems() ?? []),
      ]
      return [...new Set(found)].filter(warning => warning !== undefined)
    },
    ready: () => {
      const problems = [
        ...(watches.every(watch => watch.synced()) ? [] : ['the first lists are not there yet']),
        ...(certificate.ready() ? [] : ['the serving certificate is not trusted yet']),
        ...(now().state === 'draining' ? ['shutting down'] : []),
      ]
      return { ready: problems.length === 0 && now().state === 'serving', problems }
    },
  }
}

function countProblem({ issuer, leader, metrics }: HealthDependencies): void {
  new Gauge({
    name: 'pullpass_environment_problem',
    help: '1 for what keeps the Bluemix environment from issuing tokens at the moment',
    labelNames: ['code'] as const,
    registers: [metrics],
    collect() {
      this.reset()
      const problem = leader.leading() ? issuer.problem() : undefined
      if (problem !== undefined) this.set({ code: problem.code }, 1)
    },
  })
}

export interface OperationsServerOptions {
  /** Each problem keeps reviews from being answered. */
  ready(): { ready: boolean; problems: string[] }
  /** What people should know although reviews are answered: a refused login, for example. */
  warnings(): string[]
  metrics: Registry
  logger: Logger
}

/**
 * Probes and metrics over plain HTTP; not listening yet.
 *
 * | GET      | status                 | body                                                       |
 * |----------|------------------------|------------------------------------------------------------|
 * | /livez   | 200                    | `ok`: the event loop turns                                 |
 * | /readyz  | 200, or 503            | JSON `{ready, problems, warnings}`; warnings make nobody unready |
 * | /metrics | 200                    | Prometheus                                                 |
 */
export function buildOperationsServer(options: OperationsServerOptions): FastifyInstance {
  const { ready, warnings, metrics, logger } = options
  const server = Fastify({
    logger: false,
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    requestTimeout: 10_000,
  })

  server.get('/livez', async (_request, reply) =>
    reply.type('text/plain; charset=utf-8').send('ok\n'),
  )

  server.get('/readyz', async (_request, reply) => {
    const now = ready()
    return reply.code(now.ready ? 200 : 503).send({ ...now, warnings: warnings() })
  })

  server.get('/metrics', async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.metrics()),
  )

  server.setNotFoundHandler((_request, reply) =>
    reply
      .code(404)
      .type('text/plain; charset=utf-8')
      .send('/livez, /readyz and /metrics are here\n'),
  )
  server.setErrorHandler((error: FastifyError, request, reply) => {
    const status = error.statusCode ?? 500
    if (status >= 500) {
      logger.error({ path: request.routeOptions.url, at: framesOf(error) }, 'operations failed')
    }
    return reply.code(status).type('text/plain; charset=utf-8').send('could not be answered\n')
  })
  return server
}

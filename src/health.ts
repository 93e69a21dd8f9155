import Fastify, { type FastifyError, type FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'
import { type Failure, type FailureStore, framesOf } from './failure.ts'

export type State = 'starting' | 'serving' | 'draining'

interface HealthDependencies {
  watches: readonly { synced(): boolean; problem(): string | undefined }[]
  certificate: { ready(): boolean; warnings(): string[] }
  clock: { problem(): string | undefined }
  failureStore: FailureStore
  leader: { leading(): boolean; problem(): string | undefined }
  logger: Logger
  metrics: Registry
  now: () => { state: State }
}

interface Health {
  operations: OperationsDependencies
  /** Those that an event of the release namespace reports. */
  problems(): Problem[]
}

/**
 * The state of this replica for probes, metrics and events. Only a problem that keeps reviews from
 * being answered makes it unready; all others are warnings.
 */
export function createHealth(dependencies: HealthDependencies): Health {
  const { watches, certificate, failureStore, logger, metrics, now } = dependencies
  countProblem(dependencies)
  const operations: OperationsDependencies = {
    logger,
    metrics,
    warnings: () => {
      const shown = failureStore.all(...concerningMany).map(withoutNames)
      return [...new Set([...ownProblems(dependencies), ...shown])]
    },
    ready: () => {
      const problems = [
        ...(watches.every(watch => watch.synced()) ? [] : ['the first lists have not arrived yet']),
        ...(certificate.ready() ? [] : ['the serving certificate is not trusted yet']),
        ...(now().state === 'draining' ? ['shutting down'] : []),
      ]
      return { ready: problems.length === 0 && now().state === 'serving', problems }
    },
  }
  return { operations, problems: () => lastingProblems(dependencies) }
}

/** What an event of the release namespace is about. */
export interface Problem {
  code: string
  message: string
}

function lastingProblems(dependencies: HealthDependencies): Problem[] {
  const { failureStore, leader } = dependencies
  // The others know the same from the leader.
  const failures = leader.leading() ? failureStore.all(...concerningMany) : []
  const own = ownProblems(dependencies)
  return [...failures, ...own.map(message => ({ code: 'pullpass_problem', message }))]
}

/** Of this replica itself. */
function ownProblems({ certificate, clock, watches, leader }: HealthDependencies): string[] {
  const found = [
    ...certificate.warnings(),
    clock.problem(),
    ...watches.map(watch => watch.problem()),
    leader.problem(),
  ]
  return [...new Set(found)].filter(warning => warning !== undefined)
}

const concerningMany = ['environment', 'organization', 'cluster'] as const

/** Anybody who reaches the port reads it, so it names no namespace and no organization. */
function withoutNames({ scope, code, message }: Failure): string {
  if (scope !== 'organization') return message
  return `an organization cannot be used (${code}): see the events of the release namespace`
}

function countProblem({ failureStore, leader, metrics }: HealthDependencies): void {
  new Gauge({
    name: 'pullpass_environment_problem',
    help: '1 for the code of each problem that keeps the environment, or an organization in it, from issuing tokens',
    labelNames: ['code'] as const,
    registers: [metrics],
    collect() {
      this.reset()
      const failures = leader.leading() ? failureStore.all('environment', 'organization') : []
      for (const { code } of failures) this.set({ code }, 1)
    },
  })
}

export interface OperationsDependencies {
  /** Each problem keeps reviews from being answered. */
  ready(): { ready: boolean; problems: string[] }
  /** Other problems, such as a refused login. */
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
 * | /readyz  | 200, or 503            | JSON `{ready, problems, warnings}`; warnings do not count  |
 * | /metrics | 200                    | Prometheus                                                 |
 */
export function buildOperationsServer(dependencies: OperationsDependencies): FastifyInstance {
  const { ready, warnings, metrics, logger } = dependencies
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
      logger.error(
        { path: request.routeOptions.url, at: framesOf(error) },
        'cannot answer a request',
      )
    }
    return reply.code(status).type('text/plain; charset=utf-8').send('could not be answered\n')
  })
  return server
}

import Fastify, { type FastifyError, type FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { framesOf } from '../bug.ts'

export interface OperationsServerOptions {
  /** Each problem keeps reviews from being answered. */
  ready(): { ready: boolean; problems: string[] }
  /** What people should know although reviews are answered: a refused login, for example. */
  notes(): string[]
  metrics: Registry
  logger: Logger
}

/**
 * Probes and metrics over plain HTTP; not listening yet.
 *
 * | GET      | status                 | body                                                       |
 * |----------|------------------------|------------------------------------------------------------|
 * | /livez   | 200                    | `ok`: the event loop turns                                 |
 * | /readyz  | 200, or 503            | JSON `{ready, problems, notes}`; notes make nobody unready |
 * | /metrics | 200                    | Prometheus                                                 |
 */
export function buildOperationsServer(options: OperationsServerOptions): FastifyInstance {
  const { ready, notes, metrics, logger } = options
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
    return reply.code(now.ready ? 200 : 503).send({ ...now, notes: notes() })
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

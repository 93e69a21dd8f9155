import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { AdmissionAnswer } from '../admission/response.ts'
import { type Review, readReview } from '../admission/review.ts'
import { framesOf } from '../bug.ts'
import { type Certificate, createHttpsServer, type HttpsServer } from './https-server.ts'
import { reviewBudgetMs } from './review-budget.ts'
import { createReviewMetrics, type ReviewMetrics } from './review-metrics.ts'

export interface WebhookServerOptions {
  /**
   * Answers a review within `budgetMs`, and logs it. `outcome` is for the metrics: a word out of a
   * small fixed set. Rejects only by mistake.
   */
  mutatePod(review: Review, budgetMs: number): Promise<{ answer: AdmissionAnswer; outcome: string }>
  state(): 'starting' | 'serving' | 'draining'
  certificate: Certificate
  logger: Logger
  metrics: Registry
}

/**
 * `POST /mutate` over HTTPS; not listening yet.
 *
 * | the request, the moment                          | status | outcome counted |
 * |--------------------------------------------------|--------|-----------------|
 * | a review of a pod, serving or draining           | 200    | mutatePod's     |
 * | the same before the first synchronisation        | 503 *  | not_ready       |
 * | body is no JSON, or no AdmissionReview v1 of Pod | 400    | unusable_review |
 * | body larger than 8 MiB                           | 413    | too_large       |
 * | body not of application/json                     | 415    | unusable_review |
 * | mutatePod fails: a bug, failurePolicy decides    | 500    | bug             |
 * | another path or method                           | 404    |                 |
 *
 * \* with `Retry-After: 1`: the API server asks again within its timeout (client-go
 * rest/with_retry.go). All but 200 carry one plain sentence, which it shows to whoever creates the
 * pod. While starting or draining each answer says `Connection: close`, so that the API server's next
 * connection finds another replica; none is refused for draining.
 */
export function buildWebhookServer(options: WebhookServerOptions): HttpsServer {
  const server = createHttpsServer(options.certificate)
  const metrics = createReviewMetrics(options.metrics)
  const answering = { ...options, count: metrics.count }
  let closing = false

  server.addHook('preClose', async () => {
    closing = true
  })
  // As late as this: a connection kept alive by an answer given while closing would hold it up.
  server.addHook('onSend', async (_request, reply) => {
    if (closing || options.state() !== 'serving') reply.header('connection', 'close')
  })
  server.route({
    method: 'POST',
    url: '/mutate',
    handler: (request, reply) => answerRequest(request, reply, answering),
    onResponse: async (_request, reply) => metrics.observe(reply.elapsedTime),
  })
  server.setNotFoundHandler((_request, reply) => refuse(reply, 404, 'only POST /mutate is here'))
  server.setErrorHandler((error: FastifyError, _request, reply) => {
    const status = error.statusCode ?? 500
    metrics.count(outcomeOf(status))
    if (status >= 500) {
      options.logger.error({ at: framesOf(error) }, 'a request could not be answered')
    }
    return refuse(reply, status, SENTENCES[status] ?? 'the request could not be answered')
  })
  server.server.on('tlsClientError', metrics.countFailedHandshake)
  return server
}

type Answering = Pick<WebhookServerOptions, 'mutatePod' | 'state' | 'logger'> &
  Pick<ReviewMetrics, 'count'>

/** The body has been read to its end by now: a refusal before that could reach nobody. */
async function answerRequest(
  request: FastifyRequest,
  reply: FastifyReply,
  { mutatePod, state, logger, count }: Answering,
): Promise<FastifyReply> {
  if (state() === 'starting') {
    count('not_ready')
    return refuse(reply.header('retry-after', '1'), 503, 'pullpass is not ready yet')
  }
  const review = readReview(request.body)
  if ('problem' in review) {
    count('unusable_review')
    return refuse(reply, 400, review.problem)
  }
  try {
    const { timeout } = request.query as { timeout?: unknown }
    const { answer, outcome } = await mutatePod(review, reviewBudgetMs(timeout, reply.elapsedTime))
    count(outcome)
    return reply.send(answer)
  } catch (error) {
    count('bug')
    logger.error({ uid: review.uid, at: framesOf(error) }, 'a review could not be answered')
    return refuse(reply, 500, `review ${review.uid} could not be answered, see the log of pullpass`)
  }
}

const SENTENCES: Record<number, string> = {
  400: 'the body is not JSON',
  413: 'the body is larger than 8 MiB',
  415: 'the body is not of content type application/json',
}

function outcomeOf(status: number): string {
  if (status === 413) return 'too_large'
  return status < 500 ? 'unusable_review' : 'bug'
}

function refuse(reply: FastifyReply, status: number, sentence: string): FastifyReply {
  return reply.code(status).type('text/plain; charset=utf-8').send(`${sentence}\n`)
}

import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { framesOf } from '../failure.ts'
import { type ConnectionLimits, type Connections, watchConnections } from './connections.ts'
import { type Certificate, createHttpsServer, type HttpsServer } from './https-server.ts'
import { createLineLimit } from './line-limit.ts'
import type { AdmissionAnswer } from './response.ts'
import { type Review, readReview, reviewBudgetMs } from './review.ts'
import { createReviewMetrics, type ReviewMetrics } from './review-metrics.ts'
import { createTakeReview, type ReviewLimits, type ReviewOrProblem } from './take-review.ts'

export interface WebhookServerOptions {
  /**
   * Answers a review within `budgetMs`, and logs it. `outcome` is for the metrics: a word out of a
   * small fixed set. Rejects only where nothing could be decided.
   */
  mutatePod(review: Review, budgetMs: number): Promise<{ answer: AdmissionAnswer; outcome: string }>
  state(): 'starting' | 'serving' | 'draining'
  certificate: Certificate
  logger: Logger
  metrics: Registry
}

interface WebhookLimits extends ReviewLimits {
  connections: ConnectionLimits
}

/**
 * An API server opens a connection for each review that it waits for, some hundreds at worst. With
 * all of these used up, memory is 40 MB of connections, 32 MiB of bodies, and one that is parsed.
 * The queue is as long as connections allow: a refusal would cost another handshake, which is more
 * than an answer.
 */
export const webhookLimits: WebhookLimits = {
  connections: {
    connections: 256,
    connectionsAtMost: 768,
    handshakeMs: 10_000,
    unusedMs: 30_000,
  },
  bodies: {
    bytes: 12 << 20,
    structure: 2 << 20,
    smallBytes: 512 << 10,
    smallStructure: 20_000,
    bytesInAll: 32 << 20,
    bytesPerSecond: 1_000_000,
    slowAfterMs: 2000,
  },
  queue: { perAddress: 512, inAll: 768, perSecond: 1000, atOnce: 200 },
}

/** Once closing, for what may be under way on a connection that was not used yet. */
const UNUSED_MS = 1000
const ERROR_LINES_PER_SECOND = 5

/**
 * `POST /mutate` over HTTPS; not listening yet.
 *
 * | the request, the moment                          | status | outcome counted |
 * |--------------------------------------------------|--------|-----------------|
 * | a review of a pod, serving or draining           | 200    | mutatePod's     |
 * | the same before the first synchronisation        | 503 *  | not_ready       |
 * | body is no JSON, or no AdmissionReview v1 of Pod | 400    | unusable_review |
 * | body larger than 12 MiB, or too many values      | 413    | too_large       |
 * | body not of application/json, or compressed      | 415    | unusable_review |
 * | too many requests wait to be worked on           | 429 *  | too_many        |
 * | the connection ended before the body did         |        | cut_off         |
 * | mutatePod could not decide: a bug                | 500    | bug             |
 * | another path or method                           | 404    |                 |
 *
 * \* with `Retry-After: 1`: the API server asks again within its timeout (client-go
 * rest/with_retry.go). All but 200 carry one plain sentence, which it shows to the creator of the
 * pod. While starting or draining, and with 413, 415 and 429, each answer says `Connection: close`,
 * so that the API server's next connection finds another replica; none is refused for draining.
 * Connections that give way are counted by reason (connections.ts, read-body.ts).
 */
export function buildWebhookServer(
  options: WebhookServerOptions,
  limits: WebhookLimits = webhookLimits,
): HttpsServer {
  const server: HttpsServer = createHttpsServer(options.certificate, {
    isBusy: socket => connections.of({ socket }).isBusy(),
    begin: (request, response) => connections.of(request).begin(response),
    refuse: socket => connections.of({ socket }).close('pipelined'),
  })
  const metrics = createReviewMetrics(options.metrics)
  const { mutatePod, state, logger } = options
  const logError = createLogError(logger)
  const answering = { mutatePod, state, logError, count: metrics.count }
  const connections = watchConnections(server.server, limits.connections, metrics.countClosed)
  takeBodies(server, connections, limits)
  let closing = false

  server.addHook('preClose', async () => {
    closing = true
    setTimeout(connections.closeUnused, UNUSED_MS).unref()
  })
  // As late as this: a connection kept alive by an answer given while closing would hold it up.
  server.addHook('onSend', async (_request, reply) => {
    if (closing || state() !== 'serving') reply.header('connection', 'close')
  })
  server.route({
    method: 'POST',
    url: '/mutate',
    handler: (request, reply) => answerRequest(request, reply, answering),
    onResponse: async (_request, reply) => metrics.observe(reply.elapsedTime),
  })
  server.setNotFoundHandler((_request, reply) => refuse(reply, 404, 'only POST /mutate is here'))
  refuseErrors(server, logError, metrics)
  server.server.on('tlsClientError', metrics.countFailedHandshake)
  return server
}

/** Bodies are read by us, in turn. */
function takeBodies(server: HttpsServer, connections: Connections, limits: WebhookLimits): void {
  const { bodies, queue } = limits
  const takeReview = createTakeReview({ bodies, queue })
  server.addContentTypeParser('application/json', (request, _payload, done) => {
    void takeReview(request, connections.of(request.raw), done)
  })
}

function refuseErrors(server: HttpsServer, logError: LogError, { count }: ReviewMetrics): void {
  server.setErrorHandler((error: FastifyError, _request, reply) => {
    const status = error.statusCode ?? 500
    count(outcomeOf(status))
    if (status >= 500) logError({ at: framesOf(error) }, 'a request could not be answered')
    if (status === 429) reply.header('retry-after', '1')
    if (status > 400) reply.header('connection', 'close')
    return refuse(reply, status, SENTENCES[status] ?? 'the request could not be answered')
  })
}

interface Answering {
  mutatePod: WebhookServerOptions['mutatePod']
  state: WebhookServerOptions['state']
  logError: LogError
  count: ReviewMetrics['count']
}

/**
 * The body has been read to its end by now: a refusal before that could reach nobody. Nothing here
 * holds the pod while it waits for the answer.
 */
function answerRequest(
  request: FastifyRequest,
  reply: FastifyReply,
  { mutatePod, state, logError, count }: Answering,
): FastifyReply | Promise<FastifyReply> {
  if (state() === 'starting') {
    count('not_ready')
    return refuse(reply.header('retry-after', '1'), 503, 'pullpass is not ready yet')
  }
  const review = takeBody(request)
  if ('problem' in review) {
    count('unusable_review')
    return refuse(reply, 400, review.problem)
  }
  const { uid } = review
  const { timeout } = request.query as { timeout?: unknown }
  const answering = startAnswer(() => mutatePod(review, reviewBudgetMs(timeout, reply.elapsedTime)))
  return answering.then(
    ({ answer, outcome }) => {
      quietly(() => count(outcome))
      return reply.send(answer)
    },
    error => {
      quietly(() => count('bug'))
      logError({ uid, at: framesOf(error) }, 'a review could not be answered')
      return refuse(reply, 500, `review ${uid} could not be answered, see the log of pullpass`)
    },
  )
}

/** Also of a request without a body and its content type. */
function takeBody(request: FastifyRequest): ReviewOrProblem {
  const review = (request.body ?? readReview(undefined)) as ReviewOrProblem
  request.body = undefined
  return review
}

async function startAnswer<T>(start: () => Promise<T>): Promise<T> {
  return start()
}

type LogError = (about: object, message: string) => void

/** Bounded, as everything that a client can cause; an error of the logger itself is dropped. */
function createLogError(logger: Logger): LogError {
  const mayWrite = createLineLimit(ERROR_LINES_PER_SECOND)
  return (about, message) => {
    if (mayWrite()) quietly(() => logger.error(about, message))
  }
}

/** An answer does not depend on its count or its line. */
function quietly(run: () => void): void {
  try {
    run()
  } catch {
    // Nothing that is left could say so.
  }
}

const SENTENCES: Record<number, string> = {
  400: 'the body is not JSON',
  413: 'the body is larger than 12 MiB, or holds too many values',
  415: 'the body is not of content type application/json, or it is compressed',
  429: 'too many requests wait',
}

function outcomeOf(status: number): string {
  if (status === 408) return 'cut_off'
  if (status === 413) return 'too_large'
  if (status === 429) return 'too_many'
  return status < 500 ? 'unusable_review' : 'bug'
}

function refuse(reply: FastifyReply, status: number, sentence: string): FastifyReply {
  return reply.code(status).type('text/plain; charset=utf-8').send(`${sentence}\n`)
}

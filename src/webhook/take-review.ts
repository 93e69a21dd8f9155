import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyRequest } from 'fastify'
import type { Connection } from './connections.ts'
import { createFairQueue, type QueueLimits } from './fair-queue.ts'
import { type Body, type BodyLimits, BodyRefused, createBodyReader } from './read-body.ts'
import { type Review, readReview } from './review.ts'
import { parseFields, pickFields, TooManyValues } from './review-fields.ts'

export interface ReviewLimits {
  bodies: BodyLimits
  queue: QueueLimits
}

/** Too many requests wait for their turn. */
class TooManyRequests extends Error {
  readonly statusCode = 429
}

export type ReviewOrProblem = Review | { problem: string }

type Done = (error: Error | null, review?: ReviewOrProblem) => void

/**
 * Reads the review in a request, and calls `done` with it when it is the request's turn. A small body
 * is parsed then. A large one is parsed before, in slices, and others are answered between these.
 */
export function createTakeReview(limits: ReviewLimits) {
  const readBody = createBodyReader(limits.bodies)
  const queue = createFairQueue(limits.queue)
  return async (request: FastifyRequest, connection: Connection, done: Done): Promise<void> => {
    let body: Body | undefined
    try {
      body = await readBody(request.raw, connection)
      const read = body.isLarge ? await parseLarge(body) : undefined
      const { chunks, release, isClosed } = body
      const work = () => {
        if (isClosed() && read === undefined) done(new BodyRefused(408))
        else answerWith(read ?? (() => readReview(pickFields(parseSmall(chunks)))), release, done)
      }
      if (!queue.add(connection.address, work)) throw new TooManyRequests('too many requests wait')
    } catch (error) {
      body?.release()
      done(asRefusal(error))
    }
  }
}

function answerWith(read: () => ReviewOrProblem, release: () => void, done: Done): void {
  let review: ReviewOrProblem
  try {
    review = read()
  } catch (error) {
    release()
    done(asRefusal(error))
    return
  }
  release()
  done(null, review)
}

function parseSmall(chunks: Buffer[]): unknown {
  return JSON.parse(Buffer.concat(chunks).toString())
}

/** Time of work, and then of a pause in which others get the CPU. */
const TURN_MS = 1

/** Uses at most half of the CPU, so that small reviews do not wait for a large one. */
async function parseLarge({ chunks, isClosed, release }: Body): Promise<() => ReviewOrProblem> {
  const parsing = parseFields([...chunks])
  for (;;) {
    const until = performance.now() + TURN_MS
    let step = parsing.next()
    while (!step.done && performance.now() < until) step = parsing.next()
    if (step.done) {
      const review = readReview(step.value)
      release()
      return () => review
    }
    if (isClosed()) throw new BodyRefused(408)
    await sleep(TURN_MS)
  }
}

function asRefusal(error: unknown): Error {
  if (error instanceof TooManyValues) return new BodyRefused(413)
  if (error instanceof SyntaxError) return new NotJson('not JSON')
  return error as Error
}

/** Says nothing of the text, unlike the errors of JSON.parse. */
class NotJson extends Error {
  readonly statusCode = 400
}

import type { FastifyReply } from 'fastify'

/** Status, name without `CF-`, code, words. */
export type CloudError = [status: number, name: string, code: number, words: string]

export const notFound: CloudError = [404, 'NotFound', 10000, 'Unknown request']
export const notAuthenticated: CloudError = [401, 'NotAuthenticated', 10002, 'Authentication error']
export const invalidToken: CloudError = [401, 'InvalidAuthToken', 1000, 'Invalid Auth Token']
export const notAuthorized: CloudError = [
  403,
  'NotAuthorized',
  10003,
  'You are not authorized to perform the requested action',
]

export const rateLimitExceeded: CloudError = [
  429,
  'RateLimitExceeded',
  10013,
  'Rate Limit Exceeded',
]

export const uaaUnavailable: CloudError = [
  503,
  'UaaUnavailable',
  20004,
  'The UAA service is currently unavailable',
]

export function badQuery(words: string): CloudError {
  return [400, 'BadQueryParameter', 10005, `The query parameter is invalid: ${words}`]
}

export function refuse(reply: FastifyReply, v3: boolean, error: CloudError): FastifyReply {
  return reply.code(error[0]).send(errorBody(v3, error))
}

/** v2 and v3 have shapes of their own (v2_error_hasher.rb, v3_error_hasher.rb). */
export function errorBody(v3: boolean, [, name, code, words]: CloudError) {
  return v3
    ? { errors: [{ detail: words, title: `CF-${name}`, code }] }
    : { description: words, error_code: `CF-${name}`, code }
}

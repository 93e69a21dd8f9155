import { type Answer, json, type Received, text } from '../wire/exchange.ts'

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

export const uaaUnavailable: CloudError = [
  503,
  'UaaUnavailable',
  20004,
  'The UAA service is currently unavailable',
]

export function badQuery(words: string): CloudError {
  return [400, 'BadQueryParameter', 10005, `The query parameter is invalid: ${words}`]
}

/** v2 and v3 have shapes of their own (v2_error_hasher.rb, v3_error_hasher.rb). */
export function refuse(v3: boolean, [status, name, code, words]: CloudError): Answer {
  return json(status, errorBody(v3, { name, code, words }))
}

function errorBody(
  v3: boolean,
  { name, code, words }: { name: string; code: number; words: string },
) {
  return v3
    ? { errors: [{ detail: words, title: `CF-${name}`, code }] }
    : { description: words, error_code: `CF-${name}`, code }
}

/**
 * The cloud controller of 2017 over its rate limit (middleware/rate_limiter.rb): JSON that calls
 * itself text/plain, and `Retry-After` is the same epoch time as `X-RateLimit-Reset`.
 */
export function rateLimitExceeded(received: Received, resetAt: number): Answer {
  const v3 = received.path.startsWith('/v3')
  const body = errorBody(v3, {
    name: 'RateLimitExceeded',
    code: 10013,
    words: 'Rate Limit Exceeded',
  })
  return text(429, JSON.stringify(body), {
    'retry-after': String(resetAt),
    'x-ratelimit-limit': '2000',
    'x-ratelimit-remaining': '0',
    'x-ratelimit-reset': String(resetAt),
  })
}

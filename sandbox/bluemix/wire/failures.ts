import { seconds } from '../clock.ts'
import { errorBody, rateLimitExceeded, uaaUnavailable } from '../cloud-controller/cloud-error.ts'
import type { Failure, Operation } from '../faults.ts'
import type { Request } from './request.ts'

interface Answer {
  status: number
  headers: Record<string, string>
  body: string
}

/** The answer of a failure that replaces the whole answer; undefined for the others. */
export function failureAnswer(
  failure: Failure | undefined,
  request: Request,
  operation: Operation | undefined,
): Answer | undefined {
  switch (failure) {
    case 'rate_limited':
      return rateLimited(request, operation)
    case 'unavailable':
      return html(503, '503 Service Unavailable')
    case 'error_html':
      return html(500, '500 Internal Server Error')
    case 'error_text':
      return text(500, 'Internal Error')
    case 'uaa_unavailable':
      return { ...text(503, cloudError(request, uaaUnavailable)), headers: json }
    case 'unsupported':
      return text(request.fault.status ?? 404, '404 page not found\n')
    default:
      return undefined
  }
}

const json = { 'content-type': 'application/json; charset=utf-8' }

/**
 * The cloud controller of 2017 (middleware/rate_limiter.rb) sends JSON that calls itself text/plain,
 * and `Retry-After` is the same epoch time as `X-RateLimit-Reset`. UAA says 429 with a text and no
 * `Retry-After` (ratelimiting/RateLimitingFilter.java).
 */
function rateLimited(request: Request, operation: Operation | undefined): Answer {
  const resetAt = String(seconds(request.now) + (request.fault.retryAfterSeconds ?? 2))
  if (operation === 'login') return text(429, 'Request limit exceeded')
  if (operation !== 'organizations') {
    return text(429, 'Too Many Requests', { 'retry-after': resetAt })
  }
  return text(429, cloudError(request, rateLimitExceeded), {
    'retry-after': resetAt,
    'x-ratelimit-limit': '2000',
    'x-ratelimit-remaining': '0',
    'x-ratelimit-reset': resetAt,
  })
}

function cloudError({ url }: Request, error: Parameters<typeof errorBody>[1]): string {
  return JSON.stringify(errorBody(url.startsWith('/v3'), error))
}

function text(status: number, body: string, headers: Record<string, string> = {}): Answer {
  return { status, headers: { 'content-type': 'text/plain', ...headers }, body }
}

function html(status: number, title: string): Answer {
  const body = `<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>\n`
  return text(status, body, { 'content-type': 'text/html' })
}

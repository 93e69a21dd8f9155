import { seconds } from '../clock.ts'
import { rateLimitExceeded, refuse, uaaUnavailable } from '../cloud-controller/cloud-error.ts'
import type { Failure } from '../faults.ts'
import type { Hosts } from '../world.ts'
import { type Answer, html, type Received, text } from './exchange.ts'

/** The answer of a failure that has one; a reset has none. */
export function failureAnswer(
  failure: Failure,
  received: Received,
  hosts: Hosts,
): Answer | undefined {
  switch (failure) {
    case 'reset':
    case 'truncated':
    case 'cut':
      return undefined
    case 'rate_limited':
      return rateLimited(received, hosts)
    case 'unavailable':
      return html(503, '503 Service Unavailable')
    case 'error_html':
      return html(500, '500 Internal Server Error')
    case 'error_text':
      return text(500, 'Internal Error')
    case 'uaa_unavailable':
      return refuse(received.path.startsWith('/v3'), uaaUnavailable)
    case 'unsupported':
      return text(received.fault.status ?? 404, '404 page not found\n')
  }
}

/** UAA says 429 with a text and no `Retry-After` (ratelimiting/RateLimitingFilter.java). */
function rateLimited(received: Received, hosts: Hosts): Answer {
  const resetAt = seconds(received.now) + (received.fault.retryAfterSeconds ?? 2)
  if (received.host === hosts.api) return rateLimitExceeded(received, resetAt)
  if (received.operation === 'login') return text(429, 'Request limit exceeded')
  return text(429, 'Too Many Requests', { 'retry-after': String(resetAt) })
}

import { type Answer, json, type Received } from '../wire/exchange.ts'

export function notFound(received: Received): Answer {
  return refuse(received, [404, 'CRG0000E', 'The specified token could not be found.'])
}

export function malformed(received: Received, what: string): Answer {
  return refuse(received, [400, 'CRG0000E', `The request is not valid: ${what}`])
}

/** The shape of `tokens_test.go` in bluemix-go: a request id of `<n>-<unix seconds>-<n>`. */
export function refuse(
  { now }: Received,
  [status, code, message]: [number, string, string],
): Answer {
  const requestId = `72-${(now / 1000).toFixed(3)}-99712`
  return json(status, { code, message, 'request-id': requestId })
}

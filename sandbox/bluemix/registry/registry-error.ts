import type { FastifyReply } from 'fastify'

/** Status, code, message. */
export type RegistryError = [status: number, code: string, message: string]

export const notFound: RegistryError = [404, 'CRG0000E', 'The specified token could not be found.']

export function malformed(what: string): RegistryError {
  return [400, 'CRG0000E', `The request is not valid: ${what}`]
}

/** The shape of `tokens_test.go` in bluemix-go: a request id of `<n>-<unix seconds>-<n>`. */
export function refuse(
  reply: FastifyReply,
  [status, code, message]: RegistryError,
  now: number,
): FastifyReply {
  const requestId = `72-${(now / 1000).toFixed(3)}-99712`
  return reply.code(status).send({ code, message, 'request-id': requestId })
}

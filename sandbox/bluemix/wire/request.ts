import type { Server } from 'node:https'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import type { Fault, Operation } from '../faults.ts'

export type App = FastifyInstance<Server>

interface Parts {
  Querystring: URLSearchParams
  Body: string | undefined
  Params: Record<string, string | undefined>
}

/** A request, as the services of the environment receive it (front-door.ts). */
export interface Request extends FastifyRequest<Parts> {
  /** The fault of this request. */
  fault: Fault
  /** Epoch ms by the clock of the responding service. */
  now: number
}

export type Handler = (
  request: Request,
  reply: FastifyReply,
) => FastifyReply | Promise<FastifyReply>

export type Json = Record<string, unknown>

/** The options of a route of one host. */
export function at(host: string, operation: Operation, handler: Handler) {
  const constraints = { host: new RegExp(`^${host.replaceAll('.', '\\.')}(:443)?$`) }
  return { constraints, config: { operation }, handler: handler as RouteHandlerMethod<Server> }
}

/** Decoded user and password of a Basic header; both may be empty, the scheme may not be absent. */
export function basicCredentials({
  headers,
}: Request): { user: string; password: string } | undefined {
  const encoded = /^Basic ([A-Za-z0-9+/]+=*)$/.exec(headers.authorization ?? '')?.[1]
  if (encoded === undefined) return undefined
  const decoded = Buffer.from(encoded, 'base64').toString()
  const colon = decoded.indexOf(':')
  if (colon < 0) return undefined
  return { user: decoded.slice(0, colon), password: decoded.slice(colon + 1) }
}

/** The fields of a form body; undefined for another content type or a field given twice. */
export function formFields({ headers, body }: Request): Map<string, string> | undefined {
  const [type] = (headers['content-type'] ?? '').split(';')
  if (type?.trim().toLowerCase() !== 'application/x-www-form-urlencoded') return undefined
  return uniqueFields(new URLSearchParams(body ?? ''))
}

/** Name to value; undefined where a name is given twice. */
export function uniqueFields(parameters: URLSearchParams): Map<string, string> | undefined {
  const fields = new Map(parameters)
  return fields.size === [...parameters].length ? fields : undefined
}

/** The first name that is not allowed. */
export function unknownName(names: Iterable<string>, allowed: string[]): string | undefined {
  for (const name of names) if (!allowed.includes(name)) return name
  return undefined
}

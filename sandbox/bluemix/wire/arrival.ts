import type { IncomingMessage } from 'node:http'
import type { Fault, Operation } from '../faults.ts'
import type { RequestEvent } from '../hooks.ts'
import type { Hosts, World } from '../world.ts'
import type { Received } from './exchange.ts'

export const bodyLimit = 64 * 1024

/** The Host header decides, and must be the server name of the TLS connection. */
export function addressOf(request: IncomingMessage, hosts: Hosts) {
  const name = (request.headers.host ?? '').replace(/:443$/, '')
  const url = new URL(`https://${name || 'unknown'}${request.url ?? '/'}`)
  const sni = (request.socket as { servername?: string | false }).servername
  const keys = Object.keys(hosts) as (keyof Hosts)[]
  return { url, host: sni === name ? keys.find(key => hosts[key] === name) : undefined }
}

/** The name of the organization that the header `Organization` names. */
export function organizationOf({ headers }: IncomingMessage, world: World): string | undefined {
  return world.directory.organizationByGuid(headers.organization)?.name
}

/** One character more than the limit is enough to know. */
export async function readBody(request: IncomingMessage): Promise<string> {
  let body = ''
  for await (const chunk of request.setEncoding('utf8')) {
    if (body.length <= bodyLimit) body += chunk
  }
  return body
}

export function newEvent(
  { method = '' }: IncomingMessage,
  about: { url: URL; operation: Operation | undefined; sequence: number },
): RequestEvent {
  const { url, operation, sequence } = about
  return { sequence, operation, method, host: url.host, path: url.pathname, status: undefined }
}

export function receive(
  stream: IncomingMessage,
  about: { url: URL; event: RequestEvent; body: string; fault: Fault; clock: number },
): Received {
  const { url, event, body, fault } = about
  const { operation, method, host, path } = event
  const now = about.clock + (fault.clockSkewMs ?? 0)
  const { headers } = stream
  const query = url.searchParams
  return { operation, method, host, path, query, headers, body, stream, fault, now }
}

import type { FastifyReply } from 'fastify'
import { Agent, request as send } from 'undici'
import { type App, at, type Request } from '../wire/request.ts'
import type { World } from '../world.ts'
import { emptyRegistry } from './empty-registry.ts'

/** RFC 9110, 7.6.1: these concern one connection only. */
const hopByHop = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
]

export interface RegistryProxy {
  addTo(app: App): void
  setUpstream(url: string | undefined): void
  stop(): Promise<void>
}

/**
 * `registry/v2/*`: forwards everything to the real registry, bodies as streams, with the requested
 * host name, so that the registry's `Location` headers name this host. Without a registry behind it:
 * the challenge, or 200 for `/v2/` with a valid bearer token.
 */
export function createRegistryProxy(world: World, certificate: string): RegistryProxy {
  const agent = new Agent({ bodyTimeout: 0 })
  let upstream: string | undefined
  return {
    setUpstream: url => {
      upstream = url
    },
    stop: () => agent.destroy(),
    addTo: app => {
      const options = at(world.hosts.registry, 'registry', (request, reply) =>
        upstream === undefined
          ? emptyRegistry(request, reply, certificate)
          : handOn(request, reply, { agent, upstream }),
      )
      app.register(async (unread: App) => {
        unread.removeAllContentTypeParsers()
        unread.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
        unread.all('/v2', options)
        unread.all('/v2/*', options)
      })
    },
  }
}

async function handOn(
  request: Request,
  reply: FastifyReply,
  { agent, upstream }: { agent: Agent; upstream: string },
): Promise<FastifyReply> {
  const { method, hostname, headers, raw } = request
  const hasBody =
    headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined
  try {
    const response = await send(new URL(request.url, upstream), {
      dispatcher: agent,
      method: method as 'GET',
      headers: {
        ...passed(headers),
        host: hostname,
        'x-forwarded-proto': 'https',
        'x-forwarded-host': hostname,
      },
      body: hasBody ? raw : null,
    })
    return reply.code(response.statusCode).headers(passed(response.headers)).send(response.body)
  } catch (error) {
    return reply.code(502).send(`the registry does not answer: ${(error as Error).message}\n`)
  }
}

function passed(headers: Record<string, string | string[] | undefined>) {
  const kept: Record<string, string | string[]> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !hopByHop.includes(name)) kept[name] = value
  }
  return kept
}

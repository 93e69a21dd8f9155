import { Agent, request } from 'undici'
import { type Answer, type Handler, type Received, text } from '../wire/exchange.ts'
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
  handle: Handler
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
    handle: received =>
      upstream === undefined
        ? emptyRegistry(received, world.hosts.registry, certificate)
        : handOn(received, { agent, upstream, host: world.hosts.registry }).catch(badGateway),
  }
}

async function handOn(
  received: Received,
  { agent, upstream, host }: { agent: Agent; upstream: string; host: string },
): Promise<Answer> {
  const { method, stream } = received
  const hasBody =
    stream.headers['content-length'] !== undefined ||
    stream.headers['transfer-encoding'] !== undefined
  const response = await request(new URL(stream.url ?? '/', upstream), {
    dispatcher: agent,
    method: method as 'GET',
    headers: {
      ...passed(stream.headers),
      host,
      'x-forwarded-proto': 'https',
      'x-forwarded-host': host,
    },
    body: hasBody ? stream : null,
  })
  return { status: response.statusCode, headers: passed(response.headers), stream: response.body }
}

function badGateway(error: Error): Answer {
  return text(502, `the registry does not answer: ${error.message}\n`)
}

function passed(headers: Record<string, string | string[] | undefined>) {
  const kept: Record<string, string | string[]> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !hopByHop.includes(name)) kept[name] = value
  }
  return kept
}

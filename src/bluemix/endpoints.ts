import type { Logger } from 'pino'
import { type Answer, failure, record, text, unexpectedAnswer } from './http/answer.ts'
import type { Request } from './http/request.ts'

interface Endpoints {
  /** Without `/oauth/token`; may have a path: `https://login.<d>/UAALoginServerWAR`. */
  login: string
  /** The version of the Cloud Foundry API to ask for organizations. */
  version: 'v2' | 'v3'
}

export interface Discovery {
  /** The CF API's endpoints, asked for once and then remembered. */
  endpoints(signal: AbortSignal): Promise<Endpoints>
  /** Forgets them: the next login asks again, since the environment may have moved. */
  forget(): void
}

/**
 * Finds the login endpoint as the command lines of the time did: `authorization_endpoint` of
 * `/v2/info`, and where v2 is switched off (an empty `api_version`) or gone, `links.login`, else
 * `links.uaa`, of the root document (cloud_controller_ng info_controller.rb, root_controller.rb).
 */
export function createDiscovery(
  { request, logger, now }: { request: Request; logger: Logger; now: () => number },
  { api }: { api: string },
): Discovery {
  let known: Endpoints | undefined

  async function ask(path: string, signal: AbortSignal): Promise<Answer> {
    const url = `${api}${path}`
    const answer = await request({ operation: 'discovery', method: 'GET', url, sent: [] }, signal)
    if (answer.status < 300 || answer.status === 404) return answer
    throw failure('cloud_foundry', 'discover the environment', answer, now())
  }

  return {
    endpoints: async signal => {
      if (known !== undefined) return known
      const info = await ask('/v2/info', signal)
      known = ofInfo(info) ?? ofRoot(await ask('/', signal), info, now())
      logger.info({ api, login: known.login, version: known.version }, 'environment discovered')
      return known
    },
    forget: () => {
      known = undefined
    },
  }
}

function ofInfo(info: Answer): Endpoints | undefined {
  const { authorization_endpoint: login, api_version: version } = record(info.json)
  if (info.status >= 300 || text(version) === undefined || text(login) === undefined) return
  return { login: withoutSlash(String(login)), version: 'v2' }
}

function ofRoot(root: Answer, info: Answer, nowMs: number): Endpoints {
  const action = 'discover the environment'
  if (root.status >= 300) throw failure('cloud_foundry', action, root, nowMs)
  const links = record(record(root.json).links)
  const href = (name: string) => text(record(links[name]).href)
  const login = href('login') ?? href('uaa') ?? text(record(info.json).authorization_endpoint)
  if (login === undefined) throw unexpectedAnswer(action, root)
  return { login: withoutSlash(login), version: href('cloud_controller_v2') ? 'v2' : 'v3' }
}

/** Without any `/` at its end, so that a path can follow. */
export function withoutSlash(url: string): string {
  return url.replace(/\/+$/, '')
}

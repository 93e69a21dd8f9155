import type { FastifyReply } from 'fastify'
import { seconds } from '../clock.ts'
import { verifyEs256 } from '../jwt.ts'
import type { Request } from '../wire/request.ts'
import type { Access } from './scope.ts'

/** The response of a registry without images: 401 with the challenge, 200 for `/v2/`, otherwise 404. */
export function emptyRegistry(
  request: Request,
  reply: FastifyReply,
  certificate: string,
): FastifyReply {
  const [path = ''] = request.url.split('?')
  const repository = /^\/v2\/(.+)\/(?:manifests|blobs|tags)\//.exec(path)?.[1]
  const problem = problemOf(request, repository, certificate)
  reply.header('docker-distribution-api-version', 'registry/2.0')
  if (problem !== undefined) {
    reply.header('www-authenticate', challenge(request.hostname, repository, problem))
    const errors = [{ code: 'UNAUTHORIZED', message: 'authentication required', detail: null }]
    return reply.code(401).send({ errors })
  }
  if (path === '/v2/') return reply.send({})
  const errors = [{ code: 'NAME_UNKNOWN', message: 'no such repository' }]
  return reply.code(404).send({ errors })
}

type Problem = 'no_token' | 'invalid_token' | 'insufficient_scope'

function problemOf(
  { headers: { authorization } }: Request,
  repository: string | undefined,
  certificate: string,
): Problem | undefined {
  const token = /^Bearer (\S+)$/.exec(authorization ?? '')?.[1]
  if (token === undefined) return 'no_token'
  const claims = verifyEs256(token, certificate)
  if (!claims || Number(claims.exp) <= seconds(Date.now())) return 'invalid_token'
  const access = (claims.access ?? []) as Access[]
  const enough = repository === undefined || access.some(({ name }) => name === repository)
  return enough ? undefined : 'insufficient_scope'
}

function challenge(host: string, repository: string | undefined, problem: Problem): string {
  const scope = repository === undefined ? '' : `,scope="repository:${repository}:pull"`
  const error = problem === 'no_token' ? '' : `,error="${problem}"`
  return `Bearer realm="https://${host}/oauth/token",service="registry"${scope}${error}`
}

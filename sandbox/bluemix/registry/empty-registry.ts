import { seconds } from '../clock.ts'
import { verifyEs256 } from '../jwt.ts'
import { type Answer, json, type Received } from '../wire/exchange.ts'
import type { Access } from './scope.ts'

const headers = { 'docker-distribution-api-version': 'registry/2.0' }

/** The response of a registry without images: 401 with the challenge, 200 for `/v2/`, otherwise 404. */
export function emptyRegistry(received: Received, host: string, certificate: string): Answer {
  const repository = /^\/v2\/(.+)\/(?:manifests|blobs|tags)\//.exec(received.path)?.[1]
  const problem = problemOf(received, repository, certificate)
  if (problem !== undefined) return challenge(host, repository, problem)
  if (received.path === '/v2/') return json(200, {}, headers)
  return json(404, { errors: [{ code: 'NAME_UNKNOWN', message: 'no such repository' }] }, headers)
}

type Problem = 'no_token' | 'invalid_token' | 'insufficient_scope'

function problemOf(
  { headers: { authorization } }: Received,
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

function challenge(host: string, repository: string | undefined, problem: Problem): Answer {
  const scope = repository === undefined ? '' : `,scope="repository:${repository}:pull"`
  const error = problem === 'no_token' ? '' : `,error="${problem}"`
  const bearer = `Bearer realm="https://${host}/oauth/token",service="registry"${scope}${error}`
  const errors = [{ code: 'UNAUTHORIZED', message: 'authentication required', detail: null }]
  return json(401, { errors }, { ...headers, 'www-authenticate': bearer })
}

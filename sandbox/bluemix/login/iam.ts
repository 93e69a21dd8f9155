import { randomUUID } from 'node:crypto'
import type { FastifyReply } from 'fastify'
import type { User } from '../directory.ts'
import type { LoginKind } from '../ledger.ts'
import type { Settings } from '../settings.ts'
import { type App, at, basicCredentials, formFields, type Request } from '../wire/request.ts'
import type { World } from '../world.ts'
import { type LoginOutcome, type Refusal, record, refused } from './login-outcome.ts'

/**
 * `POST iam/oidc/token` (2017) and `/identity/token` (later), client `bx:bx`. With
 * `response_type=cloud_iam,uaa` (comma or space), `uaa_client_id=cf` and an empty
 * `uaa_client_secret` the answer holds UAA tokens too (bluemix-go c514a14, authentication/iam.go).
 * The IAM access token itself is of no use at the cloud controller or at the registry.
 *
 * | grant_type (after urn:ibm:params:oauth:grant-type:) | fields             | refusal, all 400     |
 * |-----------------------------------------------------|--------------------|----------------------|
 * | apikey                                              | apikey             | BXNIM0415E           |
 * | passcode                                            | passcode           | BXNIM0602E           |
 * | (plain) password                                    | username, password | BXNIM0602E, federated BXNIM0608E |
 * | (plain) refresh_token                               | refresh_token      | BXNIM0407E, expired BXNIM0408E, session ended BXNIM0439E |
 *
 * Every other error is BXNIM0109E here; the code that IAM used is not known.
 */
export function addIam(app: App, world: World): void {
  const answer = (path: string) => (request: Request, reply: FastifyReply) => {
    if (!world.settings.iamPaths.includes(path)) return reply.code(404).send('Not Found\n')
    const outcome = malformed(world, request) ?? decide(world, request)
    record(world, outcome, request.now)
    return 'granted' in outcome ? reply.send(outcome.granted) : refuse(reply, outcome.refused)
  }
  for (const path of ['/oidc/token', '/identity/token']) {
    app.all(path, at(world.hosts.iam, 'login', answer(path)))
  }
}

function malformed({ settings }: World, request: Request): LoginOutcome | undefined {
  if (request.method !== 'POST') return bad(405, 'Method not allowed')
  if (request.query.size > 0) return bad(400, 'Parameters belong in the body')
  const client = basicCredentials(request)
  if (client?.user !== 'bx' || client.password !== 'bx') return bad(401, 'Client not known')
  const form = formFields(request)
  if (!form) return bad(400, 'Malformed form body')
  const types = responseTypes(settings, form)
  const known = types.every(each => each === 'cloud_iam' || each === 'uaa')
  if (!known || !types.includes('cloud_iam')) return bad(400, 'Property response_type is invalid')
  const uaaClient = form.get('uaa_client_id') === 'cf' && form.get('uaa_client_secret') === ''
  if (types.includes('uaa') && !uaaClient) return bad(400, 'Property uaa_client_id is invalid')
  return undefined
}

function bad(status: number, description: string): LoginOutcome {
  return refused('malformed', [status, 'BXNIM0109E', description])
}

function responseTypes({ iamSeparator }: Settings, form: Map<string, string>): string[] {
  return (form.get('response_type') ?? '').split(iamSeparator ?? /[ ,]/)
}

function decide(world: World, request: Request): LoginOutcome {
  const form = formFields(request) ?? new Map<string, string>()
  const grant = grants[form.get('grant_type') ?? '']
  if (!grant) return bad(400, 'Property grant_type is invalid')
  const found = grant.find({ world, request, field: name => form.get(name) ?? '' })
  if (Array.isArray(found)) return refused(grant.kind, found, form.get('username'))
  for (const name of ['apikey', 'password', 'passcode']) world.secrets.add(form.get(name) ?? '')
  const granted = world.iamTokens.grant(
    found,
    request.now,
    responseTypes(world.settings, form).includes('uaa'),
  )
  return { kind: grant.kind, user: found, granted }
}

type Words = [status: number, code: string, description: string]

interface Grant {
  kind: LoginKind
  find(asked: { world: World; request: Request; field: (name: string) => string }): User | Words
}

const unknownKey: Words = [400, 'BXNIM0415E', 'Provided API key could not be found']
const wrongUser: Words = [400, 'BXNIM0602E', 'The user name or password is not correct']
const invalidToken: Words = [400, 'BXNIM0407E', 'Provided token is invalid']
const expiredSession: Words = [400, 'BXNIM0408E', 'Provided refresh_token is expired']
const inactiveSession: Words = [400, 'BXNIM0439E', 'Session not active']
const federated: Words = [
  400,
  'BXNIM0608E',
  'The user is federated and must use an API key or one-time passcode',
]

const grants: Record<string, Grant> = {
  'urn:ibm:params:oauth:grant-type:apikey': {
    kind: 'iam_api_key',
    find: ({ world, field }) => world.directory.userByApiKey(field('apikey')) ?? unknownKey,
  },
  'urn:ibm:params:oauth:grant-type:passcode': {
    kind: 'iam_passcode',
    find: ({ world, field }) => world.directory.userByPasscode(field('passcode')) ?? wrongUser,
  },
  password: {
    kind: 'iam_password',
    find: ({ world, request, field }) => {
      const user = world.directory.user(field('username'))
      if (user?.federated || request.fault.refuse === 'federated') return federated
      return user?.password === field('password') ? user : wrongUser
    },
  },
  refresh_token: {
    kind: 'iam_refresh',
    find: ({ world, request, field }) => {
      const found = world.iamTokens.refresh(field('refresh_token'), request.now)
      if (typeof found !== 'string') return found
      return { expired: expiredSession, inactive: inactiveSession, invalid: invalidToken }[found]
    },
  },
}

function refuse(reply: FastifyReply, { status, code, description }: Refusal): FastifyReply {
  const context = { requestId: randomUUID() }
  return reply.code(status).send({ errorCode: code, errorMessage: description, context })
}

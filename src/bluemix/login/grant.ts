import { type Answer, record } from '../http/answer.ts'
import { environmentFailure, unexpectedAnswer } from '../http/failure.ts'
import { lifetimeMs, tokenText } from '../tokens.ts'
import type { Credentials } from './credentials.ts'

/** What a login or a refresh gives. */
export interface Grant {
  /** The UAA access token. */
  accessToken: string
  refreshToken: string | undefined
  lifetimeMs: number
}

/** A grant in use. Times are epoch milliseconds. */
export interface Held extends Grant {
  /** Of the credentials it was got with. */
  digest: string
  renewAt: number
  expiresAt: number
}

/** To be renewed at 80 % of its life, which began when it was asked for. */
export function hold(grant: Grant, digest: string, askedAt: number): Held {
  const { lifetimeMs } = grant
  return { ...grant, digest, renewAt: askedAt + 0.8 * lifetimeMs, expiresAt: askedAt + lifetimeMs }
}

/*
 * | grant    | UAA form                                    | IAM form                                |
 * |----------|---------------------------------------------|-----------------------------------------|
 * | API key  | grant_type=password, username=apikey,       | grant_type=urn:...:apikey, apikey       |
 * |          | password=<key>                              |                                         |
 * | password | grant_type=password, username, password     | grant_type=password, username, password |
 * | refresh  | grant_type=refresh_token, refresh_token     | the same, with IAM's refresh token      |
 * | always   | scope=                                      | response_type=cloud_iam,uaa and         |
 * |          |                                             | uaa_client_id=cf, uaa_client_secret=    |
 * | client   | cf, empty secret                            | bx:bx                                   |
 *
 * (bluemix-go c514a14 authentication/uaa.go and iam.go, ibm-cloud-cli-sdk 0c199ab)
 */
const iamApiKeyGrant = 'urn:ibm:params:oauth:grant-type:apikey'
export const uaaAlways = { scope: '' }
export const iamAlways = {
  response_type: 'cloud_iam,uaa',
  uaa_client_id: 'cf',
  uaa_client_secret: '',
}

/** The fields that tell who logs in. */
export function loginForm(credentials: Credentials, atIam: boolean): Record<string, string> {
  if (credentials.kind === 'password') {
    const { username, password } = credentials
    return { grant_type: 'password', username, password }
  }
  const { apiKey } = credentials
  return atIam
    ? { grant_type: iamApiKeyGrant, apikey: apiKey }
    : { grant_type: 'password', username: 'apikey', password: apiKey }
}

/** The fields that renew a session. */
export function refreshForm(refreshToken: string): Record<string, string> {
  return { grant_type: 'refresh_token', refresh_token: refreshToken }
}

/** What UAA gave; throws a TokenError where that is no token. */
export function uaaGrant(action: string, answer: Answer): Grant {
  const body = record(answer.json)
  return grant(action, answer, { access: body.access_token, refresh: body.refresh_token })
}

/** IAM's answer holds tokens of its own, of use for a refresh only, beside UAA's. */
export function iamGrant(action: string, answer: Answer): Grant {
  const body = record(answer.json)
  if (tokenText(body.access_token) !== undefined && tokenText(body.uaa_token) === undefined) {
    const message = `cannot ${action}: IAM at ${answer.origin} gives no UAA tokens; use login: uaa`
    // Another login would give the same, so it stands like a refusal.
    throw environmentFailure('locked', 'uaa_token_missing', message)
  }
  return grant(action, answer, { access: body.uaa_token, refresh: body.refresh_token })
}

function grant(action: string, answer: Answer, got: { access: unknown; refresh: unknown }): Grant {
  const accessToken = tokenText(got.access)
  if (accessToken === undefined) throw unexpectedAnswer(action, answer)
  return {
    accessToken,
    refreshToken: tokenText(got.refresh),
    lifetimeMs: lifetimeMs(accessToken, record(answer.json).expires_in),
  }
}

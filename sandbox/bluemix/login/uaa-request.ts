import { formFields, type Request, unknownName } from '../wire/request.ts'
import { type LoginOutcome, refused } from './login-outcome.ts'

const fields = [
  'grant_type',
  'username',
  'password',
  'passcode',
  'refresh_token',
  'iam_token',
  'scope',
]

/**
 * What is wrong with a token request, before its user is checked. Stricter than UAA in one point: UAA
 * ignores unknown fields, which hides mistakes of a client.
 */
export function malformed(request: Request): LoginOutcome | undefined {
  const { method, query, headers } = request
  if (method !== 'POST') {
    const words = `Request method '${method}' not supported`
    return refused('malformed', [405, 'method_not_allowed', words])
  }
  if (query.size > 0) {
    const words = 'Parameters must be passed in the body of the request'
    return refused('malformed', [406, 'query_string_not_allowed', words])
  }
  if (!/application\/json|\*\/\*/.test(headers.accept ?? '*/*')) {
    return refused('malformed', [406, 'not_acceptable', 'Could not find acceptable representation'])
  }
  const form = formFields(request)
  if (!form) return refused('malformed', [400, 'invalid_request', 'Malformed form body'])
  const unexpected = unknownName(form.keys(), fields)
  if (unexpected)
    return refused('malformed', [400, 'invalid_request', `Unexpected parameter: ${unexpected}`])
  return undefined
}

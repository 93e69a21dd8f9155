import { TokenError } from '../../registry-token/registry-token.ts'
import { record } from './answer.ts'
import { environmentFailure } from './failure.ts'

/**
 * A request that got no HTTP answer, by the error that undici or Node gave for it: network, TLS,
 * proxy, time. Of the error only its code is told: its text may quote what the other side sent.
 */
export function noAnswer(error: unknown, origin: string): TokenError {
  const { code, name, cause } = record(error)
  if (name === 'TimeoutError' || /TIMEOUT|ETIMEDOUT/.test(String(code))) {
    return environmentFailure('transient', 'timeout', `${origin} did not answer in time`)
  }
  if (error instanceof RangeError) {
    const message = `the answer of ${origin} is too large`
    return environmentFailure('transient', 'answer_too_large', message)
  }
  const why = [record(cause).code, code, name].find(word => typeof word === 'string')
  return environmentFailure('transient', 'network', `cannot reach ${origin}: ${why}${hint(why)}`)
}

/** The caller left. That says nothing of the environment. */
export function aborted(): TokenError {
  const details = { kind: 'transient', scope: 'organization', code: 'aborted' } as const
  return new TokenError('given up before the environment had answered', details)
}

function hint(why: unknown): string {
  return /SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/.test(String(why))
    ? ' (a private CA? set bluemix.caFile)'
    : ''
}

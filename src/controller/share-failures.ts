import { type FailureStore, readShared, writeShared } from '../failure.ts'
import type { TokenError } from '../issuer/issuer.ts'
import type { Leadership } from '../kubernetes/leader-election.ts'
import { environmentFailure } from './failures.ts'
import type { Failures } from './retries.ts'

const annotation = 'pullpass.io/failures'
/** At most two writes a second, however quickly failures come and go. */
const everyMs = 500
/** A new leader gives the reasons of the one before it for so long, until it has its own. */
const settleMs = 5000

/**
 * Failures of the environment and of organizations, from the leader to all replicas: an annotation of
 * the Lease, which they read anyway. So each gives the same reason within about a second. Returns how
 * to end it.
 */
export function shareFailures(dependencies: {
  store: FailureStore
  failures: Failures
  leadership: Leadership
  environmentProblem: () => TokenError | undefined
}): () => void {
  const { store, failures, leadership, environmentProblem } = dependencies
  let since = performance.now()
  const review = () => {
    const isSettled = performance.now() - since > settleMs
    const environment = environmentFailure(environmentProblem())
    if (isSettled || environment !== undefined) failures.environmentIs(environment)
    if (isSettled) failures.forgetInherited()
  }
  const share = () => {
    const leading = leadership.leading()
    if (leading) review()
    else since = performance.now()
    leadership.annotate(annotation, leading ? writeShared(store) : undefined)
  }
  share()
  const timer = setInterval(share, everyMs).unref()
  leadership.onAnnotations(annotations => {
    if (!leadership.leading()) store.replaceShared(readShared(annotations[annotation]))
  })
  return () => clearInterval(timer)
}

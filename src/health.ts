import { Gauge } from 'prom-client'
import type { Keeper } from './keeper/keep-pull-secrets.ts'
import { watchProblems } from './kubernetes/problem-events.ts'
import type { Parts } from './parts.ts'

export type State = 'starting' | 'serving' | 'draining'

/**
 * What probes, metrics and events say of this replica. Only what keeps reviews from being answered
 * makes it unready; the rest is noted, and told once as an event of the release namespace.
 */
export function createHealth(
  parts: Parts,
  now: () => { state: State; keeper: Keeper | undefined },
) {
  const { watches, certificate, clock, issuer, leader, config, logger, metrics } = parts
  countProblem(parts)
  const notes = () => {
    const found = [
      ...certificate.notes(),
      clock.problem(),
      // Who does not lead does not ask, and so does not know.
      leader.leading() ? issuer.problem()?.message : undefined,
      ...watches.map(watch => watch.problem()),
      leader.problem(),
      ...(now().keeper?.problems() ?? []),
    ]
    return [...new Set(found)].filter(note => note !== undefined)
  }
  const { namespace } = config.kubernetes
  const release = { kind: 'Namespace', name: namespace, namespace }
  const tell = (note: string) => parts.tellProblem(release, 'PullpassProblem', note)
  watchProblems({ problems: notes, tell })
  return {
    logger,
    metrics,
    notes,
    ready: () => {
      const problems = [
        ...(watches.every(watch => watch.synced()) ? [] : ['the first lists are not there yet']),
        ...(certificate.ready() ? [] : ['the serving certificate is not trusted yet']),
        ...(now().state === 'draining' ? ['shutting down'] : []),
      ]
      return { ready: problems.length === 0 && now().state === 'serving', problems }
    },
  }
}

function countProblem({ issuer, leader, metrics }: Parts): void {
  new Gauge({
    name: 'pullpass_environment_problem',
    help: '1 for what keeps the Bluemix environment from issuing tokens at the moment',
    labelNames: ['code'] as const,
    registers: [metrics],
    collect() {
      this.reset()
      const problem = leader.leading() ? issuer.problem() : undefined
      if (problem !== undefined) this.set({ code: problem.code }, 1)
    },
  })
}

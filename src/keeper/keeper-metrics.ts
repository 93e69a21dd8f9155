import { Counter, Gauge, type Registry } from 'prom-client'
import { isUsable, type PullSecretIndex } from '../pull-secret/pull-secret-index.ts'
import type { Refusals } from './refusals.ts'

const states = ['ready', 'waiting', 'refused', 'foreign'] as const

/** The keeper's counters; the states of the namespaces are counted when somebody asks. */
export function createKeeperMetrics(
  index: PullSecretIndex,
  refusals: Refusals,
  registry: Registry,
): { count(step: string, outcome: string): void } {
  const steps = new Counter({
    name: 'pullpass_keeper_steps_total',
    help: 'Steps of the keeper, by kind and outcome (done, or the code of a failure)',
    labelNames: ['step', 'outcome'] as const,
    registers: [registry],
  })
  new Gauge({
    name: 'pullpass_namespaces',
    help: 'Opted-in namespaces, by the state of their pull secret',
    labelNames: ['state'] as const,
    registers: [registry],
    collect() {
      const counts = new Map<string, number>(states.map(state => [state, 0]))
      for (const namespace of index.namespaces.keys()) {
        const state = stateOf(namespace, index, refusals)
        counts.set(state, (counts.get(state) ?? 0) + 1)
      }
      for (const [state, count] of counts) this.set({ state }, count)
    },
  })
  countFailures(index, refusals, registry)
  return { count: (step, outcome) => steps.inc({ step, outcome }) }
}

/** Of no namespace in particular: whoever owns one reads the reason in an event there. */
function countFailures(index: PullSecretIndex, refusals: Refusals, registry: Registry): void {
  new Gauge({
    name: 'pullpass_namespace_failures',
    help: 'Namespaces whose pull secret cannot be created or updated at the moment, by failure',
    labelNames: ['code'] as const,
    registers: [registry],
    collect() {
      this.reset()
      for (const { code } of refusals.all()) this.inc({ code })
      for (const namespace of index.namespaces.keys()) {
        const isForeign = index.secrets.get(namespace)?.ours === false
        if (isForeign && refusals.get(namespace) === undefined) this.inc({ code: 'foreign' })
      }
    },
  })
}

function stateOf(
  namespace: string,
  index: PullSecretIndex,
  refusals: Refusals,
): (typeof states)[number] {
  const secret = index.secrets.get(namespace)
  if (secret !== undefined && !secret.ours) return 'foreign'
  if (refusals.get(namespace) !== undefined) return 'refused'
  return isUsable(secret) ? 'ready' : 'waiting'
}

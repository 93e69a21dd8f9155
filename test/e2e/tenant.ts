import { setTimeout as sleep } from 'node:timers/promises'
import { KubeConfig } from '@kubernetes/client-node'
import type { Test } from 'tap'
import { waitFor } from '../../sandbox/processes.ts'
import { type Cluster, reachCluster } from './cluster.ts'
import type { Fixture } from './fixture.ts'

/** A user of two namespaces with the built-in role `edit` there, and no other right. */
export interface Tenant extends Cluster {
  /** The namespace with the label, and the one without. */
  open: string
  plain: string
}

/** Resolves when the rights are in effect. Both namespaces have no label yet. */
export async function createTenant(t: Test, fixture: Fixture, name: string): Promise<Tenant> {
  const [open, plain] = [`${name}-open`, `${name}-plain`]
  await fixture.namespace(open, {})
  await fixture.namespace(plain, {})
  await fixture.ask('POST', `/api/v1/namespaces/${open}/serviceaccounts`, {
    metadata: { name: 'tenant' },
  })
  for (const namespace of [open, plain]) {
    const bindings = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/rolebindings`
    await fixture.ask('POST', bindings, {
      metadata: { name: 'tenant' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'edit' },
      subjects: [{ kind: 'ServiceAccount', name: 'tenant', namespace: open }],
    })
  }
  const file = await fixture.controlPlane.kubeconfigFor(open, 'tenant')
  const kubeConfig = () => {
    const config = new KubeConfig()
    config.loadFromFile(file)
    return config
  }
  const cluster = reachCluster({ ...fixture.controlPlane, kubeConfig }, fixture.hear)
  t.teardown(() => cluster.close())
  const mayAct = async () => {
    const answers = [open, plain].map(each => cluster.ask('GET', secretsOf(each)))
    return (await Promise.all(answers)).every(({ status }) => status === 200)
  }
  await waitFor(mayAct, { withinMs: 20_000, what: 'the rights of the tenant' })
  return { ...cluster, open, plain }
}

export const secretsOf = (namespace: string) => `/api/v1/namespaces/${namespace}/secrets`
export const secretOf = (namespace: string) => `${secretsOf(namespace)}/pullpass-registry`

/** A Secret with our name, label and type, but without a credential; `change` is added to it. */
export function damaged(annotations: Record<string, string> = {}, change: object = {}) {
  return {
    metadata: {
      name: 'pullpass-registry',
      labels: { 'pullpass.io/pull-secret': 'true' },
      annotations,
    },
    type: 'kubernetes.io/dockerconfigjson',
    data: { '.dockerconfigjson': Buffer.from('{"auths":{}}').toString('base64') },
    ...change,
  }
}

/** The warnings of the events that pullpass wrote in a namespace. */
export async function notesIn(fixture: Fixture, namespace: string): Promise<string[]> {
  const path = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`
  const { body } = await fixture.ask<{ items: { note?: string; reportingController?: string }[] }>(
    'GET',
    path,
  )
  return body.items
    .filter(({ reportingController }) => reportingController?.startsWith('pullpass.io/'))
    .map(({ note = '' }) => note)
}

export interface Neighbours {
  /** Time from a new label to the Secret, and to the answer for a pod created right after it. */
  measure(): Promise<{ secretMs: number; podMs: number }>
  /** How many were measured. */
  count(): number
  /**
   * Repeats `act` so many times without a pause, then with short pauses for as long as neighbours are
   * measured. Fails if a neighbour takes more than twice its time on the quiet cluster, or if the
   * process ends.
   */
  besides(t: Test, act: (round: number) => Promise<unknown>, acts?: number): Promise<void>
}

/** A busy machine is slower for other reasons too; the faults cost far more. */
const floorMs = 3000
const mostActs = 2000

/** Other tenants, each with a namespace that is labelled during the attack. */
export async function createNeighbours(fixture: Fixture): Promise<Neighbours> {
  let count = 0
  const measure = async () => {
    const name = `neighbour-${count++}`
    await fixture.namespace(name, {})
    const started = performance.now()
    await fixture.label(name, 'enabled')
    const container = { name: 'main', image: 'registry.dedicated.example.com/acme/hello:1' }
    const pod = { metadata: { name: 'first' }, spec: { containers: [container] } }
    const { status, body } = await fixture.create(name, pod)
    const podMs = performance.now() - started
    if (status !== 201 || !body.spec?.imagePullSecrets) throw new Error(`the pod of ${name}`)
    await fixture.whenSecret(name, undefined, 120_000)
    return { secretMs: performance.now() - started, podMs }
  }
  const quiet = [await measure(), await measure(), await measure()]
  const limit = (key: 'secretMs' | 'podMs') =>
    Math.max(floorMs, 2 * Math.max(...quiet.map(each => each[key])))
  const besides: Neighbours['besides'] = async (t, act, acts = 150) => {
    const { pid } = fixture.pullpass.process()
    let measuring = true
    let rounds = 0
    const actWhile = async (goesOn: () => boolean, pauseMs: number) => {
      for (; goesOn(); await sleep(pauseMs)) await act(rounds++)
    }
    await actWhile(() => rounds < acts / 2, 0)
    const acting = actWhile(() => rounds < acts, 0).then(() =>
      actWhile(() => measuring && rounds < mostActs, 20),
    )
    for (let times = 0; times < 2; times++) {
      const { secretMs, podMs } = await measure()
      t.ok(secretMs < limit('secretMs'), `the first Secret took ${Math.round(secretMs)} ms`)
      t.ok(podMs < limit('podMs'), `the first pod took ${Math.round(podMs)} ms`)
    }
    measuring = false
    await acting
    t.equal(fixture.pullpass.process().pid, pid)
    t.ok(fixture.pullpass.process().running(), 'the process goes on')
  }
  return { measure, count: () => count, besides }
}

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { LiveToken, MintEntry } from '../../sandbox/bluemix/ledger.ts'
import { makeFolder, waitFor } from '../../sandbox/processes.ts'
import type { Sandbox } from '../../sandbox/sandbox.ts'
import { type Cluster, reachCluster } from './cluster.ts'
import { findLeaks } from './leak-scan.ts'
import { pod } from './pods.ts'
import { secretRequests, unusualRequests } from './request-pattern.ts'
import { reachWebhook, type Webhook } from './webhook.ts'

type StartedSandbox = Omit<Sandbox, 'registry'>

/** A running sandbox with helpers; it records every text, to search it for leaked credentials. */
export interface Fixture
  extends Cluster,
    Pick<StartedSandbox, 'pullpass' | 'environment' | 'controlPlane'> {
  webhook: Webhook
  /** Runs kubectl as administrator. With `-f FILE`, the object is passed as a file. */
  kubectl(command: string, object?: unknown): ReturnType<StartedSandbox['controlPlane']['kubectl']>
  /** One series of /metrics, or the sum of all series with this name. */
  count(series: string): Promise<number>
  /** The tokens of a namespace: all that were minted, and those that are valid now. */
  mints(namespace: string): MintEntry[]
  liveTokens(namespace: string): LiveToken[]
  /** Records a text of the test, or a credential that was never valid in the environment. */
  hear(text: string): void
  confide(secret: string): void
  /** Recorded texts, logs, metrics and objects (other than Secrets) that contain a credential. */
  leaks(): Promise<string[]>
}

/** Stops the sandbox at the end of the test. Resolves when the API server sends pods to pullpass. */
export async function startFixture(t: Test, starting: Promise<StartedSandbox>): Promise<Fixture> {
  const { environment, controlPlane, pullpass, stop } = await starting
  t.teardown(stop)
  const folder = await makeFolder('fixture')
  const heard: string[] = []
  const confided: string[] = []
  const hear = (text: string) => void heard.push(text)
  const cluster = reachCluster(controlPlane, hear)
  t.teardown(async () => {
    await Promise.all([cluster.close(), folder.remove()])
  })
  await pullpass.whenReady()
  await whenPodsAreSent(cluster)
  const webhook = await reachWebhook(cluster, hear)
  t.teardown(() => webhook.close())
  const isOf = (namespace: string) => (token: MintEntry) =>
    token.description.split('/')[2] === namespace
  let files = 0
  return {
    ...cluster,
    ...{ environment, controlPlane, pullpass, webhook, hear },
    confide: secret => void confided.push(secret),
    kubectl: async (command, object) => {
      const file = join(folder.path, `${files++}.json`)
      if (object !== undefined) await writeFile(file, JSON.stringify(object))
      const args = command.split(' ').map(word => (word === 'FILE' ? file : word))
      const said = await controlPlane.kubectl(...args)
      hear(said.stdout + said.stderr)
      return said
    },
    count: async series => sumOf(await pullpass.metrics(), series, hear),
    mints: namespace => environment.ledger.mints().filter(isOf(namespace)),
    liveTokens: namespace => environment.ledger.liveTokens().filter(isOf(namespace)),
    leaks: async () => {
      const texts = new Map([
        ['what was heard', heard.join('\n')],
        ['the log', pullpass.output()],
        ['/metrics', await pullpass.metrics().catch(() => '')],
        ['/readyz', JSON.stringify(await pullpass.readyz().catch(() => ''))],
        ['the audit log', JSON.stringify(await controlPlane.audit())],
        ['the objects', await visibleObjects(controlPlane)],
      ])
      return findLeaks(texts, [...environment.issued(), ...confided])
    },
  }
}

/** Tests that hold at the end of every such file. */
export function testInvariants(t: Test, fixture: Fixture, foreign: string[] = []): void {
  t.test('no credential that the environment issued appears outside of Secrets', async t => {
    t.ok(fixture.environment.issued().length > 3, 'there were secrets to look for')
    t.same(await fixture.leaks(), [])
  })
  t.test('Secrets were requested only by their name, and written as documented', async t => {
    const audit = await fixture.controlPlane.audit()
    const verbs = new Set(secretRequests(audit).map(({ verb }) => verb))
    t.ok(['list', 'watch', 'patch'].every(verb => verbs.has(verb)))
    t.same(
      unusualRequests(audit, namespace => foreign.includes(namespace)),
      [],
    )
  })
  t.test('the log contains no unexplained error', async t => {
    t.same(fixture.pullpass.lines('an internal error, see the log'), [])
    t.same(fixture.pullpass.lines('unhandled rejection'), [])
  })
}

/** The API server needs a moment to use a changed webhook configuration. */
async function whenPodsAreSent(cluster: Cluster): Promise<void> {
  await cluster.namespace('first')
  const isSent = async () => {
    const { status, body } = await cluster.create('first', pod('first'), '?dryRun=All')
    return status === 201 && body.spec?.imagePullSecrets !== undefined
  }
  await waitFor(isSent, { withinMs: 20_000, what: 'pods to be sent to pullpass' })
}

async function visibleObjects(controlPlane: StartedSandbox['controlPlane']): Promise<string> {
  const kinds = 'events,pods,namespaces,serviceaccounts,leases,mutatingwebhookconfigurations'
  return (await controlPlane.kubectl('get', kinds, '--all-namespaces', '-o', 'json')).stdout
}

function sumOf(text: string, series: string, hear: (text: string) => void): number {
  hear(text)
  return text
    .split('\n')
    .filter(line => line.startsWith(`${series} `) || line.startsWith(`${series}{`))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}

import t from 'tap'
import { Agent, fetch } from 'undici'
import type { AuditEvent } from '../../sandbox/control-plane.ts'
import { namespaceOf } from '../../sandbox/descriptions.ts'
import { type HelmSandbox, startHelmSandbox } from '../../sandbox/helm.ts'
import { kubectl, releaseNamespace } from '../../sandbox/install.ts'
import { startLoadGenerator } from '../../sandbox/load-generator.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { onNode } from '../sandbox/on-node.ts'
import { image } from './pods.ts'

await onNode()

const controller = { listEverySeconds: 5 }
const service = 'system:serviceaccount:pullpass:pullpass'
const configurations = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
const secrets = (namespace: string) => `/api/v1/namespaces/${namespace}/secrets`

/** Everything that a release creates, except the documented objects that it keeps. */
const kinds = [
  ...[
    'deployments',
    'replicasets',
    'pods',
    'services',
    'configmaps',
    'secrets',
    'jobs',
    'cronjobs',
  ],
  ...['serviceaccounts', 'roles', 'rolebindings', 'clusterroles', 'clusterrolebindings'],
  'mutatingwebhookconfigurations',
]

for (const version of [4, 3] as const) {
  t.test(`the chart works with Helm ${version}`, async t => {
    const sandbox = await startHelmSandbox({ version })
    t.teardown(() => sandbox.stop())
    const { controlPlane, environment } = sandbox
    const secretsOf = (namespace: string) =>
      kubectl(controlPlane, 'get', 'secrets', '-n', namespace, '-o', 'name')

    await t.test('after the installation, two replicas are ready', async t => {
      await sandbox.install({ controller })
      t.equal((await sandbox.pods()).filter(isReady).length, 2)
    })

    await label(sandbox, 'shop')
    const load = startLoadGenerator({ controlPlane, namespace: 'shop', image, perSecond: 5 })
    t.teardown(load.stop)

    await t.test('helm test succeeds', async t => {
      const { code, stdout, stderr } = await sandbox.helm(['test', 'pullpass'])
      t.equal(code, 0, stderr)
      t.match(stdout + stderr, 'names pullpass-registry', 'and shows what it found')
      t.notMatch(await kubectl(controlPlane, 'get', 'namespaces'), 'selftest', 'nothing stays')
    })

    await t.test('a second release fails with the reason, and mints nothing', async t => {
      const args = ['install', 'second', 'charts/pullpass', '--wait']
      const { code, stderr } = await sandbox.helm(args, sandbox.values())
      t.equal(code, 1)
      t.match(
        stderr,
        'The MutatingWebhookConfiguration pullpass belongs to the release pullpass in namespace pullpass',
      )
      const another = sandbox.values({ webhook: { configurationName: 'second' } })
      t.match(
        (await sandbox.helm(args, another)).stderr,
        /The registry \S+ is served by the release/,
      )
      const mints = environment.ledger.mints().map(namespaceOf).filter(Boolean)
      t.equal(new Set(mints).size, mints.length, 'no namespace has two tokens')
      t.equal((await sandbox.pods()).length, 2, 'and nothing of it runs')
    })

    await t.test('a changed setting replaces the replicas', async t => {
      const before = await names(sandbox)
      await sandbox.upgrade({ controller: { ...controller, concurrency: 8 } })
      t.notOk((await names(sandbox)).some(name => before.includes(name)))
    })

    await t.test('clean-up removes what unlabelled namespaces had, beside a leader', async t => {
      await label(sandbox, 'elsewhere')
      const isThere = async () => (await secretsOf('elsewhere')) !== ''
      await waitFor(isThere, { withinMs: 20_000, what: 'the Secret' })
      await kubectl(controlPlane, 'label', 'namespace', 'elsewhere', 'pullpass.io/inject-')
      const said = await runJob(sandbox, 'clean-up', '--from=cronjob/pullpass-clean-up')
      t.match(said, /^elsewhere: Secret deleted$/m)
      t.match(said, /^elsewhere: token revoked$/m)
      t.equal(await secretsOf('elsewhere'), '')
      t.not(await secretsOf('shop'), '', 'labelled ones keep theirs')
      t.same(environment.ledger.liveTokens().map(namespaceOf).filter(Boolean), ['shop'])
    })

    await t.test('the ServiceAccount has the rights it needs, and no others', async t => {
      await sandbox.whenLed()
      const used = await usedRights(sandbox)
      const denied = used.filter(({ forbidden }) => forbidden > 0)
      for (const line of table(['call of the service', 'times', 'refused'], used.map(asRow))) {
        t.comment(line)
      }
      t.same(denied, [], 'every call of the service was allowed')
      const asked = await askForMore(sandbox)
      for (const line of table(['call with its token', 'answer'], asked)) t.comment(line)
      t.same(
        asked.filter(([, status]) => status !== '403'),
        [],
        'every other call is refused',
      )
    })

    await t.test('uninstalling refuses no pod, and keeps only the documented objects', async t => {
      const { code, stderr } = await sandbox.helm(['uninstall', 'pullpass', '--wait'])
      t.equal(code, 0, stderr)
      const gone = async () => (await remaining(sandbox, ['pods'])) === ''
      await waitFor(gone, { withinMs: 30_000, what: 'the pods to end' })
      await load.stop()
      const { created, refused } = await load.count()
      t.same(refused, [], `of ${created} pods none was refused`)
      t.equal(await remaining(sandbox, kinds), '')
      const left = await kubectl(controlPlane, 'get', 'secrets,leases', '-A', '-o', 'name')
      const own = left.split('\n').filter(name => name.includes('pullpass'))
      t.same(own, [
        'secret/pullpass-ca',
        'secret/pullpass-registry',
        'lease.coordination.k8s.io/pullpass',
      ])
    })

    t.test('one token was minted for the namespace in all of these steps', async t => {
      const mints = environment.ledger.mints().filter(token => namespaceOf(token) === 'shop')
      t.equal(mints.length, 1)
    })
  })
}

async function label({ controlPlane }: HelmSandbox, namespace: string): Promise<void> {
  await kubectl(controlPlane, 'create', 'namespace', namespace)
  await kubectl(controlPlane, 'label', 'namespace', namespace, 'pullpass.io/inject=enabled')
}

/** Resolves with its log. */
async function runJob({ controlPlane }: HelmSandbox, name: string, from: string): Promise<string> {
  const inRelease = ['-n', 'pullpass']
  await kubectl(controlPlane, 'create', 'job', name, from, ...inRelease)
  const complete = ['--for=condition=complete', '--timeout=120s']
  await kubectl(controlPlane, 'wait', `job/${name}`, ...complete, ...inRelease)
  return kubectl(controlPlane, 'logs', `job/${name}`, ...inRelease)
}

async function names(sandbox: HelmSandbox): Promise<string[]> {
  return (await sandbox.pods()).map(({ metadata }) => metadata?.name ?? '')
}

function isReady({ status }: Awaited<ReturnType<HelmSandbox['pods']>>[number]): boolean {
  return status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True'
}

async function remaining({ controlPlane }: HelmSandbox, of: string[]): Promise<string> {
  const selector = 'app.kubernetes.io/instance=pullpass'
  return kubectl(controlPlane, 'get', of.join(), '-A', '-l', selector, '-o', 'name')
}

interface UsedRight {
  right: string
  times: number
  forbidden: number
}

/** The requests of the service in the audit log of the API server. */
async function usedRights({ controlPlane }: HelmSandbox): Promise<UsedRight[]> {
  const rights = new Map<string, UsedRight>()
  const events = await controlPlane.audit()
  // A watch appears twice in the audit log.
  for (const event of events.filter(({ verb, stage }) => verb !== 'watch' || stage !== COMPLETE)) {
    if (event.user.username !== service) continue
    const right = `${event.verb} ${nameOf(event)}`
    const known = rights.get(right) ?? { right, times: 0, forbidden: 0 }
    const allowed = event.annotations?.['authorization.k8s.io/decision'] === 'allow'
    rights.set(right, {
      right,
      times: known.times + 1,
      forbidden: known.forbidden + Number(!allowed),
    })
  }
  return [...rights.values()].sort((a, b) => a.right.localeCompare(b.right))
}

const COMPLETE = 'ResponseComplete'

function nameOf({ objectRef }: AuditEvent): string {
  const { resource, namespace, name } = objectRef ?? {}
  if (resource === 'events') return 'events'
  const where = resource !== 'namespaces' && namespace === releaseNamespace ? 'own ' : ''
  return `${where}${resource} ${name ?? ''}`.trim()
}

function asRow({ right, times, forbidden }: UsedRight): string[] {
  return [right, String(times), String(forbidden)]
}

/** Sends forbidden requests with the token of its ServiceAccount. */
async function askForMore(sandbox: HelmSandbox): Promise<[call: string, status: string][]> {
  const { controlPlane } = sandbox
  const [pod] = await names(sandbox)
  const exec = `/api/v1/namespaces/${releaseNamespace}/pods/${pod}/exec?command=id&stdout=true`
  const body = { metadata: { name: 'pullpass-registry' } }
  const calls: [method: string, path: string, body?: object][] = [
    ['GET', `${secrets(releaseNamespace)}/bluemix`],
    ['GET', secrets('shop')],
    ['GET', '/api/v1/secrets'],
    ['POST', secrets('shop'), body],
    ['POST', secrets(releaseNamespace), body],
    ['GET', configurations],
    ['POST', configurations, { metadata: { name: 'another' } }],
    ['GET', `${configurations}/another`],
    ['PUT', `${configurations}/another`, { metadata: { name: 'another' } }],
    ['PATCH', `${configurations}/another`, {}],
    ['DELETE', `${configurations}/another`],
    ['DELETE', configurations],
    ['DELETE', `${configurations}/pullpass`],
    ['GET', exec],
    ['POST', exec],
  ]
  const token = await controlPlane.token(releaseNamespace, 'pullpass')
  const dispatcher = new Agent({ connect: { ca: controlPlane.ca } })
  const asked = calls.map(async ([method, path, body]): Promise<[string, string]> => {
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
    const { status } = await fetch(controlPlane.url + path, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': type },
      body: body === undefined ? null : JSON.stringify(body),
      dispatcher,
    })
    return [`${method} ${path.split('?')[0]}`, String(status)]
  })
  return Promise.all(asked).finally(() => dispatcher.destroy())
}

/** Lines of a table with aligned columns. */
function table(head: string[], rows: string[][]): string[] {
  const all = [head, ...rows]
  const width = (column: number) => Math.max(...all.map(row => row[column]?.length ?? 0))
  return all.map(row =>
    row
      .map((cell, column) => cell.padEnd(width(column)))
      .join('  ')
      .trimEnd(),
  )
}

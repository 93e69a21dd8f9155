import { setTimeout as sleep } from 'node:timers/promises'
import { AdmissionregistrationV1Api } from '@kubernetes/client-node'
import t from 'tap'
import { namespaceOf } from '../../sandbox/descriptions.ts'
import { startHelmSandbox } from '../../sandbox/helm.ts'
import { kubectl, releaseNamespace } from '../../sandbox/install.ts'
import { startLoadGenerator } from '../../sandbox/load-generator.ts'
import { type RunningProcess, startProcess, waitFor } from '../../sandbox/processes.ts'
import { tool } from '../../sandbox/tools.ts'
import { splitCertificates } from '../../src/certificate/ca.ts'
import { onNode } from '../sandbox/on-node.ts'
import { image } from './pods.ts'

await onNode()

const perSecond = 10
const loadMs = 60_000
/** A CA signs for about 27 s and is trusted for another 12; a leaf is renewed after 7. */
const certificate = { leafSeconds: 10, caSeconds: 40 }

const sandbox = await startHelmSandbox({ version: 4 })
t.teardown(() => sandbox.stop())
const { controlPlane } = sandbox
await sandbox.install({ certificate })
for (const command of [
  'create namespace shop',
  'label namespace shop pullpass.io/inject=enabled',
]) {
  await kubectl(controlPlane, ...command.split(' '))
}
await sandbox.whenLed()

/** All pods of the Deployment so far, with the process that reads their logs. */
const seen = new Map<string, RunningProcess>()
const happened: string[] = []
const begun = performance.now()

t.test('no pod is refused or missed during upgrades and restarts of the release', async t => {
  const caBefore = await trusted()
  await look()
  const load = startLoadGenerator({ controlPlane, namespace: 'shop', image, perSecond })
  t.teardown(load.stop)
  await sleep(2000)
  await restart()
  await deleteLeader()
  // From here on, an unreachable replica would cause a pod without the reference.
  await upgrade()
  await restart()
  await deleteLeader()
  await waitFor(async () => isDisjoint(caBefore, await trusted()), {
    withinMs: 60_000,
    what: 'the first CA to be trusted no more',
  })
  happened.push(`${seconds()} CA rotated`)
  await sleep(Math.max(0, loadMs - (performance.now() - begun)))
  await load.stop()
  await look()
  for (const line of happened) t.comment(line)
  const { created, refused, withoutReference, slowestMs } = await load.count()
  t.comment(`${created} pods created, the slowest in ${slowestMs} ms`)
  t.same(refused, [], '0 creates failed')
  t.same(withoutReference, [], '0 pods without the reference')
  t.ok(created >= (loadMs / 1000) * perSecond * 0.9, 'the pods kept coming')
})

t.test('the API server counted no failed webhook call', async t => {
  const metrics = await kubectl(controlPlane, 'get', '--raw', '/metrics')
  const failed =
    /^apiserver_admission_webhook_(fail_open|rejection)_count\{.*inject\.pullpass\.io.*/gm
  t.same(metrics.match(failed) ?? [], [])
})

t.test('each change of the release did happen', async t => {
  const logs = [...seen.values()].map(({ output }) => output())
  const lines = logs.flatMap(readLines)
  const steps = new Set(lines.map(({ step }) => step))
  for (const step of ['begin', 'add-next', 'sign-with-next', 'drop-older']) {
    t.ok(steps.has(step), `CA: ${step}`)
  }
  const signed = logs.map(signedBy)
  t.ok(Math.max(...signed) > 2, `certificates signed by each replica: ${signed.join(', ')}`)
  t.equal(seen.size, 2 + 2 + 1 + 2 + 2 + 1, 'replicas that there were')
  t.same(
    lines.filter(({ level }) => Number(level) >= 50),
    [],
    'no replica logged an error',
  )
  const mints = sandbox.environment.ledger.mints().filter(namespaceOf)
  t.equal(mints.length, 1, 'one token was minted by all leaders together')
})

async function restart(): Promise<void> {
  await kubectl(controlPlane, ...inRelease('rollout restart deployment/pullpass'))
  await settled('rollout restart')
}

async function upgrade(): Promise<void> {
  const webhook = { failurePolicy: 'Ignore' }
  await sandbox.upgrade({ certificate, webhook, controller: { concurrency: 8 } })
  await settled('helm upgrade, failurePolicy Ignore')
}

async function deleteLeader(): Promise<void> {
  const name = (await sandbox.whenLed()).metadata?.name
  await kubectl(controlPlane, ...inRelease(`delete pod ${name} --wait=false`))
  await sandbox.whenLed()
  await settled(`leader ${name} deleted`)
}

async function settled(what: string): Promise<void> {
  await kubectl(controlPlane, ...inRelease('rollout status deployment/pullpass --timeout=60s'))
  happened.push(`${seconds()} ${what}`)
  await look()
}

async function look(): Promise<void> {
  for (const { metadata } of await sandbox.pods()) {
    const name = metadata?.name ?? ''
    if (!seen.has(name)) seen.set(name, await followLog(name))
  }
}

/** The log of a pod is gone with the pod. */
async function followLog(name: string): Promise<RunningProcess> {
  const kubeconfig = `--kubeconfig=${controlPlane.kubeconfigFile}`
  return startProcess({
    command: await tool('kubectl'),
    args: [kubeconfig, 'logs', name, '-n', releaseNamespace, '--follow'],
  })
}

/** The certificates that the API server trusts. */
async function trusted(): Promise<string[]> {
  const hooks = controlPlane.kubeConfig().makeApiClient(AdmissionregistrationV1Api)
  const { webhooks } = await hooks.readMutatingWebhookConfiguration({ name: 'pullpass' })
  const bundle = webhooks?.[0]?.clientConfig.caBundle ?? ''
  return splitCertificates(Buffer.from(bundle, 'base64').toString())
}

function isDisjoint(some: string[], others: string[]): boolean {
  return others.length > 0 && !others.some(one => some.includes(one))
}

function inRelease(command: string): string[] {
  return [...command.split(' '), '-n', releaseNamespace]
}

function seconds(): string {
  return `${Math.round((performance.now() - begun) / 1000)} s:`
}

function readLines(log: string): Record<string, unknown>[] {
  const lines = log.split('\n').filter(line => line.startsWith('{'))
  return lines.map(line => JSON.parse(line))
}

function signedBy(log: string): number {
  return readLines(log).filter(({ msg }) => msg === 'certificate signed').length
}

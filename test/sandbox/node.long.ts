import { CoreV1Api, type V1ContainerStatus, type V1Pod } from '@kubernetes/client-node'
import t from 'tap'
import { logIn } from '../../sandbox/bluemix/log-in.ts'
import { waitFor } from '../../sandbox/processes.ts'
import { pushHello } from '../../sandbox/node/hello.ts'
import { startNode } from '../../sandbox/node/node.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { image, pod } from '../e2e/pods.ts'
import { onNode } from './on-node.ts'

await onNode()

const sandbox = await startSandbox({ progress: part => t.comment(`starting ${part}`) })
t.teardown(sandbox.stop)
const { controlPlane, environment } = sandbox
const node = await startNode({ controlPlane, environment }, [])
t.teardown(node.stop)
t.comment('started a real node')
const credential = { username: 'bearer', password: await logIn(environment) }
await pushHello(image, credential, environment)

const core = controlPlane.kubeConfig().makeApiClient(CoreV1Api)
const rows: [what: string, outcome: string][] = []

t.test('a pod of a labelled namespace pulls with the Secret of pullpass, and runs', async t => {
  await createNamespace('shop', 'enabled')
  await core.createNamespacedPod({ namespace: 'shop', body: pod('mypod') })
  await until('shop', 'mypod', 'to run', isRunning)
  const pulled = (await events('shop', 'mypod')).filter(text => /^Successfully pulled/.test(text))
  t.equal(pulled.length, 1, pulled.join())
  note('labelled namespace', `pulled and runs: ${pulled[0]?.slice(0, 60)}`)
})

t.test('its log can be read, and a command be run in it', async t => {
  const logged = await kubectl('logs', 'mypod', '-n', 'shop')
  t.match(logged, /^hello from mypod\n$/)
  const read = ['/bin/gosh', '-c', 'echo "$(</hello.txt) on $(</proc/1/comm)"']
  const said = await kubectl('exec', 'mypod', '-n', 'shop', '--', ...read)
  t.equal(said, 'This is the file. on gosh\n')
  note('kubectl logs, kubectl exec', `${logged.trim()}; ${said.trim()}`)
})

t.test('without the label, the registry refuses, although the node has the image', async t => {
  await createNamespace('quiet')
  await core.createNamespacedPod({ namespace: 'quiet', body: pod('mypod') })
  const refused = await until('quiet', 'mypod', 'to be refused', isRefused)
  const message = containerOf(refused)?.state?.waiting?.message ?? ''
  t.match(message, /401|403|unauthorized|authorization failed|denied/i)
  note('namespace without the label', `refused: ${message.slice(-90)}`)
})

t.test('a pod whose Secret comes late runs without help', async t => {
  t.teardown(() => environment.faults.clear())
  environment.faults.set('mint', { fail: 'unavailable' })
  await createNamespace('late', 'enabled')
  await core.createNamespacedPod({ namespace: 'late', body: pod('mypod') })
  const refused = await until('late', 'mypod', 'to be refused', isRefused)
  t.match(refused.spec?.imagePullSecrets, [{ name: 'pullpass-registry' }])
  const begun = performance.now()
  environment.faults.clear()
  await until('late', 'mypod', 'to run', isRunning)
  const seconds = Math.round((performance.now() - begun) / 1000)
  t.pass(`it runs ${seconds} s after the environment works again`)
  note('Secret comes late', `refused at first; runs ${seconds} s after the environment works again`)
})

t.test('a container over its memory limit is killed by the kernel', async t => {
  const eater = { name: 'main', image, resources: { limits: { memory: '16Mi' } } }
  const command = ['/bin/gosh', '-c', 'a=aaaaaaaaaaaaaaaa; while true; do a="$a$a"; done']
  const spec = { containers: [{ ...eater, command }], restartPolicy: 'Never' }
  await core.createNamespacedPod({ namespace: 'shop', body: pod('eater', spec) })
  const ended = await until('shop', 'eater', 'to end', ({ status }) => status?.phase === 'Failed')
  const { reason, exitCode } = containerOf(ended)?.state?.terminated ?? {}
  t.match({ reason, exitCode }, { reason: 'OOMKilled', exitCode: 137 })
  note('16 MiB limit', `${reason}, exit code ${exitCode}`)
})

t.test('the table', async t => {
  for (const [what, outcome] of rows) t.comment(`${what.padEnd(30)} ${outcome}`)
})

async function createNamespace(name: string, label?: string): Promise<void> {
  const labels = label === undefined ? {} : { 'pullpass.io/inject': label }
  await core.createNamespace({ body: { metadata: { name, labels } } })
  const ready = async () =>
    (await kubectl('get', 'serviceaccounts', '-n', name, '-o', 'name')).includes('/default')
  await waitFor(ready, { withinMs: 20_000, what: `the ServiceAccount of ${name}` })
}

async function until(
  namespace: string,
  name: string,
  what: string,
  holds: (pod: V1Pod) => boolean,
): Promise<V1Pod> {
  let seen: V1Pod | undefined
  const look = async () => {
    seen = await core.readNamespacedPod({ name, namespace })
    return holds(seen)
  }
  await waitFor(look, { withinMs: 180_000, what: `${namespace}/${name} ${what}` }).catch(error => {
    t.comment(JSON.stringify(seen?.status, undefined, 1))
    t.comment(node.output().slice(-6000))
    throw error
  })
  return seen as V1Pod
}

async function events(namespace: string, name: string): Promise<string[]> {
  const fieldSelector = `involvedObject.name=${name}`
  const { items } = await core.listNamespacedEvent({ namespace, fieldSelector })
  return items.map(({ message = '' }) => message)
}

async function kubectl(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await controlPlane.kubectl(...args)
  if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr}`)
  return stdout
}

function note(what: string, outcome: string): void {
  rows.push([what, outcome.replaceAll('\n', ' ')])
}

function containerOf({ status }: V1Pod): V1ContainerStatus | undefined {
  return status?.containerStatuses?.[0]
}

function isRunning(pod: V1Pod): boolean {
  return containerOf(pod)?.state?.running !== undefined
}

function isRefused(pod: V1Pod): boolean {
  return containerOf(pod)?.state?.waiting?.reason === 'ErrImagePull'
}

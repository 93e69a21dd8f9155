import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import t from 'tap'
import { type ControlPlane, startControlPlane } from '../../sandbox/control-plane.ts'
import { startProcess, waitFor } from '../../sandbox/processes.ts'
import { processesLeft } from './processes-left.ts'

t.test('a control plane behaves like a cluster', async t => {
  const [plane, other] = await Promise.all([
    startControlPlane({ controllerManager: true }),
    startControlPlane(),
  ])
  t.teardown(() => Promise.all([plane.stop(), other.stop()]))

  t.test('the control plane creates pods for a Deployment', async t => {
    t.match(await plane.kubectl('create', 'deployment', 'shop', '--image=shop'), { code: 0 })
    await waitFor(async () => (await names(plane, 'pods')).some(name => /^shop-/.test(name)), {
      withinMs: 20_000,
      what: 'a pod of the Deployment',
    })
    const pods = (await plane.audit()).filter(
      ({ verb, objectRef }) => verb === 'create' && objectRef?.resource === 'pods',
    )
    t.match(pods, [
      { user: { username: 'system:kube-controller-manager' }, responseStatus: { code: 201 } },
    ])
  })

  t.test('a ServiceAccount has a token and the rights it was given', async t => {
    const kubeconfig = `--kubeconfig=${await plane.kubeconfigFor('default', 'default')}`
    const who = await plane.kubectl(kubeconfig, 'auth', 'whoami', '-o=jsonpath={.status.userInfo}')
    t.equal(JSON.parse(who.stdout).username, 'system:serviceaccount:default:default')
    const refused = await plane.kubectl(kubeconfig, 'get', 'secrets')
    t.equal(refused.code, 1)
    t.match(refused.stderr, 'cannot list resource "secrets"')
  })

  t.test('two control planes at the same time do not affect each other', async t => {
    await other.kubectl('create', 'namespace', 'elsewhere')
    t.ok((await names(other, 'namespaces')).includes('elsewhere'))
    t.notOk((await names(plane, 'namespaces')).includes('elsewhere'))
  })

  t.test('a crashed API server comes back at the same address with the same data', async t => {
    await other.kubectl('create', 'namespace', 'kept')
    await other.stopApiserver(0)
    t.notOk(await listens(other.apiserverPort))
    await other.startApiserver()
    t.ok((await names(other, 'namespaces')).includes('kept'))
    const created = (await other.audit()).filter(
      ({ verb, objectRef }) => verb === 'create' && objectRef?.name === 'kept',
    )
    t.match(created, [{ user: { username: 'administrator' } }], 'its audit log goes on')
  })

  t.test('a stopped control plane leaves no processes or files', async t => {
    await other.stop()
    t.same(await leftBehind(dirname(other.caFile), other.apiserverPort), [])
  })
})

t.test('a control plane leaves nothing when the process that started it is killed', async t => {
  const module = new URL('../../sandbox/control-plane.ts', import.meta.url)
  const program = `
    const { startControlPlane } = await import('${module}')
    const { caFile, apiserverPort } = await startControlPlane()
    console.log(JSON.stringify({ caFile, apiserverPort }))
    setInterval(() => {}, 1000)`
  const starter = await startProcess({
    command: process.execPath,
    args: ['--input-type=module', '--eval', program],
    ready: ({ output }) => /\}$/m.test(output()),
  })
  const { caFile, apiserverPort } = JSON.parse(starter.output())
  t.ok(existsSync(caFile))
  await starter.stop(0)
  t.same(await leftBehind(dirname(caFile), apiserverPort), [])
})

/** What remains of a control plane ten seconds after its end. */
async function leftBehind(folder: string, port: number): Promise<string[]> {
  const gone = waitFor(() => !existsSync(folder), { withinMs: 10_000, what: 'the folder to go' })
  const left = await gone.then(
    () => [],
    () => [folder],
  )
  const processes = await processesLeft(folder)
  return [...left, ...processes, ...((await listens(port)) ? [`port ${port}`] : [])]
}

async function listens(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}

async function names(plane: ControlPlane, resource: string): Promise<string[]> {
  const { stdout } = await plane.kubectl('get', resource, '-o=name')
  return stdout.split('\n').map(name => name.replace(/^.*\//, ''))
}

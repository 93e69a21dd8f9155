import { readFile } from 'node:fs/promises'
import t from 'tap'
import { Agent, fetch } from 'undici'
import { kubectl } from '../../sandbox/install.ts'
import { startParts } from '../../sandbox/parts.ts'
import { onlyReplica, startTestbed } from '../../sandbox/testbed.ts'
import { reachCluster } from './cluster.ts'
import { pod, references } from './pods.ts'

/* A tenant with the role `edit` in one namespace stores 300 ServiceAccounts of 1 MB there. */

const ACCOUNTS = 300
/** Of the chart: the memory limit, and three quarters of it for Node's heap. */
const LIMIT_MIB = 256
const NODE_OPTIONS = `--max-old-space-size=${(LIMIT_MIB * 3) / 4}`

t.test('a tenant who stores 300 MB of ServiceAccounts does not fill the memory', async t => {
  const { cluster, controlPlane, pullpass, stop } = await startAll()
  t.teardown(stop)
  await cluster.namespace('crowded', {})
  await kubectl(controlPlane, 'create', 'serviceaccount', 'tenant', '-n', 'crowded')
  const grant = ['rolebinding', 'tenant', '--clusterrole=edit', '--serviceaccount=crowded:tenant']
  await kubectl(controlPlane, 'create', ...grant, '-n', 'crowded')
  const token = await controlPlane.token('crowded', 'tenant')
  const dispatcher = new Agent({ connect: { ca: controlPlane.ca } })
  t.teardown(() => dispatcher.close())
  const write = async (method: string, path: string, body: object) => {
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
    const response = await fetch(`${controlPlane.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': type },
      body: JSON.stringify(body),
      dispatcher,
    })
    await response.arrayBuffer()
    return response.status
  }

  const accounts = '/api/v1/namespaces/crowded/serviceaccounts'
  for (let index = 0; index < ACCOUNTS; index++) {
    t.equal(await write('POST', accounts, large(`large-${index}`)), 201)
  }
  await served('created')
  for (let index = 0; index < 50; index++) {
    const metadata = { annotations: { changed: 'yes' } }
    t.equal(await write('PATCH', `${accounts}/large-${index}`, { metadata }), 200)
  }
  await served('changed')
  await pullpass.process().stop()
  await pullpass.restart()
  await served('restarted')

  /** A new namespace is served, by the same process, within the memory limit. */
  async function served(name: string): Promise<void> {
    await cluster.namespace(name)
    await cluster.whenSecret(name)
    const { status, body } = await cluster.create(name, pod('mypod'))
    t.same([status, references(body)], [201, ['pullpass-registry']], name)
    t.ok(pullpass.process().running(), `${name}: the process runs`)
    const peak = await peakMiB(pullpass.process().pid)
    t.comment(`${name}: at most ${peak} MiB`)
    t.ok(peak < LIMIT_MIB, `${name}: ${peak} MiB`)
  }
})

/** Most of it are names of Secrets that its pods may use; ours is not among them. */
function large(name: string): object {
  const imagePullSecrets = Array.from({ length: 4000 }, (_, index) => ({
    name: `${index}-`.padEnd(240, 'x'),
  }))
  const annotations = { 'kubernetes.io/enforce-mountable-secrets': 'T' }
  return { metadata: { name, annotations }, imagePullSecrets }
}

/** The shipped program with the chart's heap, beside a cluster. */
async function startAll() {
  return startParts(async ({ begun, stop }) => {
    const testbed = await begun(
      startTestbed({
        registry: false,
        controllerManager: false,
        pullpass: {
          count: 1,
          program: 'bundle',
          balanced: false,
          proxied: false,
          clocks: false,
          failurePolicy: 'Fail',
          apiKey: undefined,
          settings: undefined,
          launch: given => ({ ...given, env: { ...given.env, NODE_OPTIONS } }),
        },
        progress: () => {},
      }),
    )
    const { controlPlane } = testbed
    const cluster = reachCluster(controlPlane, () => {})
    await begun(Promise.resolve({ stop: cluster.close }))
    return { cluster, controlPlane, pullpass: onlyReplica(testbed).pullpass, stop }
  })
}

async function peakMiB(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Math.round(Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) / 1024)
}

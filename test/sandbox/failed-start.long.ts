import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startBluemixEnvironment } from '../../sandbox/bluemix/environment.ts'
import { startComponents } from '../../sandbox/components.ts'
import { makeFolder, type Program, waitFor } from '../../sandbox/processes.ts'
import { startPullpass } from '../../sandbox/pullpass.ts'
import { startTestbed, type TestbedPullpass } from '../../sandbox/testbed.ts'
import { processesLeft } from './processes-left.ts'

const folder = await makeFolder('failed-start')
t.teardown(folder.remove)
// All files of this test are in this folder, and all its programs have it on their command lines.
process.env.TMPDIR = folder.path

const two: TestbedPullpass = {
  count: 2,
  program: 'bundle',
  balanced: true,
  proxied: true,
  clocks: true,
  failurePolicy: 'Fail',
  apiKey: undefined,
  settings: undefined,
  launch: undefined,
}

/** The parts of a testbed in the order of their start; replicas start together. The first three start quickly. */
const order = [
  /environment/,
  /registry/,
  /control plane/,
  /bundle/,
  /balancer/,
  /webhook configuration/,
  /replica [12]/,
  /replica [12]/,
]

t.test('a testbed leaves nothing if one of its first components cannot be started', async t => {
  for (const component of order.slice(0, 3)) {
    const progress = (begun: string) => {
      if (component.test(begun)) throw new Error(`cannot start ${begun}`)
    }
    const starting = startTestbed({
      registry: true,
      controllerManager: false,
      pullpass: two,
      progress,
    })
    await t.rejects(starting, { message: component })
    await nothingIsLeft(t, `${component}`)
  }
})

t.test('a testbed leaves nothing after a complete start', async t => {
  const components: string[] = []
  const testbed = await startTestbed({
    registry: true,
    controllerManager: false,
    pullpass: two,
    progress: component => void components.push(component),
  })
  t.match(components, order)
  t.equal(components.length, order.length)
  await testbed.stop()
  await nothingIsLeft(t, 'a complete start')
})

// All other components have started by then, so this is the failure that could leave most.
t.test('a testbed leaves nothing if one of several processes ends during the start', async t => {
  let launched = 0
  const launch = (program: Program) =>
    launched++ === 0 ? program : { ...program, args: ['--eval', 'process.exit(1)'] }
  await t.rejects(
    startTestbed({
      registry: true,
      controllerManager: false,
      pullpass: { ...two, launch },
      progress: () => {},
    }),
    /pullpass ended/,
  )
  await nothingIsLeft(t, 'a second process that ends')
})

t.test('a pullpass process that cannot be started leaves no folder', async t => {
  const environment = await startBluemixEnvironment()
  const kubeconfigFor = () => Promise.reject(new Error('no ServiceAccount'))
  const ports = { webhook: 1, operations: 1 }
  const starting = startPullpass({ environment, controlPlane: { kubeconfigFor }, ports })
  await t.rejects(starting, /no ServiceAccount/)
  await environment.stop()
  await nothingIsLeft(t, 'startPullpass')
})

t.test('a Bluemix environment that cannot write its files leaves no port open', async t => {
  process.env.TMPDIR = join(folder.path, 'absent')
  await t.rejects(startBluemixEnvironment(), /ENOENT/)
  process.env.TMPDIR = folder.path
  await nothingIsLeft(t, 'startBluemixEnvironment')
})

t.test('components stop in reverse order, each once, even if one cannot stop', async t => {
  const stopped: number[] = []
  const component = (number: number) => ({
    stop: async () => {
      stopped.push(number)
      if (number === 2) throw new Error('2 cannot stop')
    },
  })
  const { stop } = await startComponents(async components => {
    for (const number of [1, 2, 3]) await components.begun(Promise.resolve(component(number)))
    return components
  })
  await t.rejects(Promise.all([stop(), stop()]), /2 cannot stop/)
  t.same(stopped, [3, 2, 1])
})

t.test('a component that starts after the others were stopped is stopped too', async t => {
  const stopped: string[] = []
  const { begun, stop } = await startComponents(async components => components)
  const late = Promise.withResolvers<{ stop(): Promise<void> }>()
  const starting = begun(late.promise)
  await stop()
  late.resolve({ stop: async () => void stopped.push('late') })
  await t.rejects(starting, /stopped before the start was complete/)
  t.same(stopped, ['late'])
})

t.test('a failed start gives its reason, even if a component cannot be stopped', async t => {
  const broken = { stop: () => Promise.reject(new Error('cannot stop')) }
  const starting = startComponents(async ({ begun }) => {
    await begun(Promise.resolve(broken))
    throw new Error('cannot start')
  })
  await t.rejects(starting, {
    message: 'cannot start',
    errors: [{ message: 'cannot start' }, { message: 'cannot stop' }],
  })
})

/** Fails if a folder, a process, or a port of this process remains. */
async function nothingIsLeft(t: Test, after: string): Promise<void> {
  const closed = () => openServers().length === 0
  // A server stops listening a moment before Node removes it from its list.
  await waitFor(closed, { withinMs: 5000, what: 'servers to close' }).catch(() => {})
  t.same(openServers(), [], `after ${after}: no port is open`)
  t.same(await readdir(folder.path), [], `after ${after}: no folder is left`)
  t.same(await processesLeft(folder.path), [], `after ${after}: no process is left`)
}

function openServers(): string[] {
  return process.getActiveResourcesInfo().filter(name => name === 'TCPServerWrap')
}

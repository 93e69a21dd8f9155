import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  makeFolder,
  type RunningProcess,
  run,
  startProcess,
  waitFor,
} from '../../sandbox/processes.ts'
import { obstacleToNode } from '../../sandbox/node/own-network.ts'

const skip = obstacleToNode() ?? false
const folder = await makeFolder('real-node')
t.teardown(folder.remove)

t.test('a real node changes nothing on the machine, and leaves nothing', { skip }, async t => {
  const before = await seenOnMachine()
  const started = await startRun()
  const during = await seenOnMachine()
  t.ok(during.cgroups.length > before.cgroups.length, 'it has cgroups')
  t.not(during.processes.length, 0, 'it has processes')
  for (const what of ['mounts', 'settings', 'addresses'] as const) {
    t.strictSame(during[what], before[what], `${what}: as before while it runs`)
  }
  await started.stop(60_000)
  t.same(await started.ended, { code: 0, signal: null }, started.output())
  await isAsBefore(t, before)
})

t.test('a real node leaves nothing if its run is killed', { skip }, async t => {
  const before = await seenOnMachine()
  const started = await startRun()
  await started.stop(0)
  await isAsBefore(t, before)
})

/** All files of the run are in the folder, and its programs have it on their command lines. */
async function startRun(): Promise<RunningProcess> {
  return startProcess({
    name: 'the run',
    command: process.execPath,
    args: [join(import.meta.dirname, 'fixtures', 'run-node.ts')],
    env: { ...process.env, TMPDIR: folder.path },
    ready: ({ output }) => output().includes('the pod runs'),
    readyWithinMs: 600_000,
  })
}

/** What a node could change on the machine. */
interface Seen {
  processes: string[]
  files: string[]
  mounts: string[]
  cgroups: string[]
  settings: string
  addresses: string
}

const SETTINGS = [
  ...['vm.overcommit_memory', 'vm.panic_on_oom', 'kernel.panic', 'kernel.panic_on_oops'],
  ...['kernel.keys.root_maxkeys', 'kernel.keys.root_maxbytes', 'net.ipv4.ip_forward'],
]

async function seenOnMachine(): Promise<Seen> {
  const read = async (command: string, ...args: string[]) => (await run({ command, args })).stdout
  const linesWith = (text: string, part: string) =>
    text.split('\n').filter(line => line.includes(part))
  const cgroups = ['/sys/fs/cgroup', '-type', 'd', '-name', 'pullpass-node-*']
  return {
    processes: linesWith(await read('ps', '-eo', 'args'), folder.path),
    files: await readdir(folder.path),
    mounts: linesWith(await readFile('/proc/mounts', 'utf8'), folder.path),
    cgroups: (await read('find', ...cgroups)).split('\n'),
    settings: await read('sysctl', ...SETTINGS),
    addresses: await read('ip', '-oneline', 'address'),
  }
}

/** The reaper needs a moment after the run has ended. */
async function isAsBefore(t: Test, before: Seen): Promise<void> {
  let after = before
  const same = async () => {
    after = await seenOnMachine()
    return JSON.stringify(after) === JSON.stringify(before)
  }
  await waitFor(same, { withinMs: 20_000, what: 'everything to be removed' }).catch(() => {})
  t.strictSame(after, before, 'as before')
}

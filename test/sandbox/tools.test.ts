import { chmod, mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { type Folder, makeFolder, run, startProcess, waitFor } from '../../sandbox/processes.ts'
import { tool } from '../../sandbox/tools.ts'

const TOOLS = fileURLToPath(new URL('../../sandbox/tools.ts', import.meta.url))

t.test('a missing tool or variable is reported in one sentence', async t => {
  const { path } = await folder(t)
  await program(join(path, 'old', 'go'), 'echo go1.22.3')
  await program(join(path, 'refusing', 'go'), 'exit 1')
  const golang = 'The sandbox builds'
  const needs = 'with Go 1.26 or newer'
  const install = 'install it from https://go.dev/dl/'
  const assets =
    'or set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl (setup-envtest makes one).'
  const table = [
    {
      name: 'etcd',
      env: { PATH: join(path, 'empty') },
      says: `${golang} etcd ${needs}, but there is no Go on the PATH: ${install}, ${assets}`,
    },
    {
      name: 'crane',
      env: { PATH: join(path, 'empty') },
      says: `${golang} crane ${needs}, but there is no Go on the PATH: ${install}.`,
    },
    {
      name: 'crane',
      env: { PATH: join(path, 'old') },
      says: `${golang} crane ${needs}, but Go 1.22.3 is too old: ${install}.`,
    },
    {
      name: 'crane',
      env: { PATH: join(path, 'refusing') },
      says: `${golang} crane ${needs}, but the Go on the PATH is older: ${install}.`,
    },
    {
      name: 'kubectl',
      env: { PULLPASS_KUBERNETES: '1.12' },
      says: 'PULLPASS_KUBERNETES must be one of 1.34, 1.36, 1.37, got "1.12"',
    },
    {
      name: 'kubectl',
      env: { KUBEBUILDER_ASSETS: path },
      says: `KUBEBUILDER_ASSETS is ${path}, but there is no kubectl in it`,
    },
  ] as const
  for (const { name, env, says } of table) {
    const error = await failure(tool(name, { env: { ...env, PULLPASS_SANDBOX_CACHE: path } }))
    t.equal(error.message, says)
    t.equal(error.stack, says, 'and nothing else is shown')
  }
})

t.test('the programs of setup-envtest are used if no version is requested', async t => {
  const { path } = await folder(t)
  await program(join(path, 'kubectl'), 'exit 0')
  const env = { KUBEBUILDER_ASSETS: path, PULLPASS_SANDBOX_CACHE: path, PATH: '' }
  t.equal(await tool('kubectl', { env }), join(path, 'kubectl'))
  await t.rejects(tool('kubectl', { env, version: '1.34' }), { name: 'ToolError' })
})

t.test('two processes that need the same tool at the same time build it once', async t => {
  const { path } = await folder(t)
  const build = () => run(builder(path))
  const [one, other] = await Promise.all([build(), build()])
  t.same([one.code, other.code], [0, 0])
  t.equal(one.stdout, other.stdout)
  t.equal((one.stderr + other.stderr).match(/^building crane/gm)?.length, 1)
  const { stdout } = await run({ command: one.stdout.trim(), args: ['version'] })
  t.match(stdout, /^v\d+\.\d+\.\d+$/m, 'it knows its version')
  t.equal((await readdir(path)).length, 1, 'nothing else is left in the cache')
})

t.test('a killed build leaves no incomplete tool', async t => {
  const { path } = await folder(t)
  const building = await startProcess({
    ...builder(path),
    ready: ({ output }) => output().includes('building crane'),
  })
  await building.stop(0)
  const isEmpty = async () => (await readdir(path)).length === 0
  await t.resolves(waitFor(isEmpty, { withinMs: 10_000, what: 'the cache to be empty' }))
})

function builder(cache: string) {
  return {
    command: process.execPath,
    args: [TOOLS, 'crane'],
    env: { ...process.env, PULLPASS_SANDBOX_CACHE: cache },
  }
}

async function folder(t: { teardown(end: () => Promise<void>): void }): Promise<Folder> {
  const made = await makeFolder('tools-test')
  t.teardown(() => made.remove())
  return made
}

async function program(file: string, script: string): Promise<void> {
  await mkdir(join(file, '..'), { recursive: true })
  await writeFile(file, `#!/bin/sh\n${script}\n`)
  await chmod(file, 0o755)
}

async function failure(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => new Error('it did not fail'),
    error => error,
  )
}

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { onFreePorts } from '../../sandbox/ports.ts'
import { makeFolder, run, startProcess } from '../../sandbox/processes.ts'
import { bundle, nodeFlags } from '../../scripts/bundle.ts'

const folder = await makeFolder('start')
t.teardown(folder.remove)
const main = join(folder.path, 'pullpass.mjs')
await bundle(join(import.meta.dirname, '..', '..', 'src', 'main.ts'), main)

/** pullpass, started from the command line without a cluster. */
async function start(args: string[], env: Record<string, string> = {}) {
  return run({ command: process.execPath, args: [main, ...args], env })
}

async function serve(settings: string, env?: Record<string, string>) {
  const file = join(folder.path, 'config.yaml')
  await writeFile(file, settings)
  return start(['serve', '--config', file], env)
}

t.test('an invalid configuration lists every error and exits with code 2', async t => {
  const { code, stdout, stderr } = await serve(
    'domain: https://x\nadmision: {}\nadmission: {port: http}\ncontroller: {concurrency: 0}\n',
    { PULLPASS_ADMISSION_WAIT_MS: 'soon' },
  )
  t.equal(code, 2)
  t.equal(stdout, '')
  const reported = [
    'domain',
    'admision',
    'admission.port',
    'controller.concurrency',
    'WAIT_MS',
    'organiz',
  ]
  t.same(
    reported.filter(name => !stderr.includes(name)),
    [],
    stderr,
  )
  t.notMatch(stderr, /\n {4}at /, 'no stack')
})

t.test('an invalid setting is quoted, a credential is never quoted', async t => {
  const { code, stderr } = await serve('apiKey: hunter2-hunter2\nbluemix: {password: swordfish}\n')
  t.equal(code, 2)
  t.notMatch(stderr, /hunter2|swordfish/)
})

t.test('a configuration file that is missing or not YAML is reported by its name', async t => {
  const absent = join(folder.path, 'absent.yaml')
  const { code, stderr } = await start(['serve', '--config', absent])
  t.same([code, stderr.includes(absent), stderr.includes('ENOENT')], [2, true, true], stderr)
  const broken = await serve('a: [1')
  t.equal(broken.code, 2, broken.stderr)
})

t.test('without arguments, or with wrong ones, the program prints its usage', async t => {
  const wrong = [[], ['serve'], ['nonsense']]
  for (const args of wrong) {
    const { code, stderr } = await start(args)
    t.equal(code, 2, args.join(' '))
    t.match(stderr, /usage|error/i)
  }
})

t.test('the option --help prints the usage', async t => {
  const { code, stdout } = await start(['--help'])
  t.equal(code, 0)
  t.match(stdout, /serve/)
})

t.test('SIGUSR1 does not open the debugger', async t => {
  const cluster = { name: 'nowhere', cluster: { server: 'https://127.0.0.1:1' } }
  const context = { name: 'nowhere', context: { cluster: 'nowhere', user: 'nobody' } }
  const kubeconfig = join(folder.path, 'kubeconfig')
  const users = [{ name: 'nobody', user: {} }]
  const about = { clusters: [cluster], contexts: [context], users, 'current-context': 'nowhere' }
  await writeFile(kubeconfig, JSON.stringify(about))
  const config = join(folder.path, 'serve.yaml')
  const settings = {
    domain: 'dedicated.example.com',
    bluemix: { organization: 'acme' },
    certificate: { names: ['localhost'] },
    kubernetes: { kubeconfig },
    shutdown: { drainMs: 0 },
  }
  await writeFile(config, JSON.stringify(settings))
  const program = await onFreePorts(async (webhook, operations) =>
    startProcess({
      command: process.execPath,
      args: [...nodeFlags, main, 'serve', '--config', config],
      env: {
        PULLPASS_ADMISSION_PORT: String(webhook),
        PULLPASS_OPERATIONS_PORT: String(operations),
      },
      ready: async () => {
        const livez = await fetch(`http://127.0.0.1:${operations}/livez`).catch(() => undefined)
        return livez?.ok === true
      },
    }),
  )
  program.signal('SIGUSR1')
  program.signal('SIGTERM')
  await program.ended
  t.notMatch(program.output(), 'Debugger')
})

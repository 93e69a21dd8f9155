// Runs the commands of README and docs/operations.md exactly as printed, in the same order.
import { chmod, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { namespaceOf } from '../../sandbox/descriptions.ts'
import { type HelmSandbox, startHelmSandbox } from '../../sandbox/helm.ts'
import { kubectl } from '../../sandbox/install.ts'
import { run, waitFor } from '../../sandbox/processes.ts'
import { tool } from '../../sandbox/tools.ts'
import { onNode } from '../sandbox/on-node.ts'

await onNode()

const checkout = join(import.meta.dirname, '..', '..')

/** Runs a line as a person would, in a folder with the chart and the keys. */
type Type = (line: string) => Promise<string>

t.test(
  'the commands that docs/operations.md prints to install, upgrade, rotate and uninstall work as printed',
  async t => {
    const sandbox = await startHelmSandbox({ version: 4 })
    t.teardown(() => sandbox.stop())
    const { controlPlane, environment } = sandbox
    const type = await createShell(t, sandbox)
    await kubectl(controlPlane, 'delete', 'namespace', 'pullpass')
    await kubectl(controlPlane, 'create', 'namespace', 'shop')
    const { Install = [], Upgrade = [], Rotate = [], Uninstall = [], ...others } = await printed()
    const names = async (kind: string) => kubectl(controlPlane, 'get', kind, '-A', '-o', 'name')

    const whenSecret = async () => {
      const isThere = async () => (await names('secrets')).includes('secret/pullpass-registry')
      await waitFor(isThere, { withinMs: 20_000, what: 'the Secret' })
    }

    // The image is built by `npm run test:image`, of the same Dockerfile and with the same words.
    const install = Install.filter(line => !line.startsWith('docker '))
    t.equal(Install.length - install.length, 2, 'what builds and pushes the image')
    for (const line of install) await t.resolves(type(line), line)
    await whenSecret()
    for (const line of [...Upgrade, ...Rotate]) await t.resolves(type(line), line)
    // That of `helm test` is revoked later: its namespace is missing in two lists by then.
    const minted = environment.ledger.mints().map(namespaceOf).filter(Boolean)
    t.same(minted, ['pullpass-selftest', 'shop'], 'no namespace has two tokens')
    const live = () => environment.ledger.liveTokens().map(namespaceOf).filter(Boolean)
    t.ok(live().includes('shop'), 'the token stays as it is')

    const looks = others['Events, status and logs'] ?? []
    t.ok(looks.length > 0)
    for (const line of looks) await t.resolves(type(line), line)

    const [emergency = '', ...more] = Uninstall.filter(line => line.includes('configuration'))
    t.same(more, [])
    await t.resolves(type(emergency), emergency)
    t.equal(await names('mutatingwebhookconfigurations'), '', 'no pod is asked about any more')

    for (const line of Uninstall.filter(line => line !== emergency)) {
      await t.resolves(type(line), line)
    }
    t.same(live(), [], 'every token is taken back')
    t.notMatch(await names('secrets'), 'pullpass-registry', 'and so is every Secret')
    t.notMatch(await names('deployments'), 'pullpass')
  },
)

t.test('the chart commands in the README are part of docs/operations.md', async t => {
  const known = Object.values(await printed()).flat()
  const own = commandsIn(await readFile(join(checkout, 'README.md'), 'utf8'))
  const lines = own.filter(line => /^(helm|kubectl) /.test(line))
  t.ok(lines.length > 0)
  for (const line of lines) t.ok(known.includes(line), line)
})

/** The commands of docs/operations.md by the titles of its sections. */
async function printed(): Promise<Record<string, string[]>> {
  const text = await readFile(join(checkout, 'docs', 'operations.md'), 'utf8')
  const sections = text.split(/^## /m).slice(1)
  return Object.fromEntries(
    sections.map(section => {
      const [title = ''] = section.split('\n', 1)
      const inline = [...section.matchAll(/`(kubectl get [^`]+)`/g)].map(([, line]) => String(line))
      return [title, [...commandsIn(section), ...inline]]
    }),
  )
}

/** Lines of code blocks without a language; a line that ends in \ continues in the next one. */
function commandsIn(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/^```(\w*)\n(.*?)^```$/gms)]
  const plain = blocks.flatMap(([, language, block = '']) => (language === '' ? [block] : []))
  return plain.flatMap(block =>
    block
      .replaceAll(/ *\\\n */g, ' ')
      .trim()
      .split('\n'),
  )
}

/** Adds to `helm install` what only the sandbox needs: its image, proxy and CA. */
const HELM = `#!/bin/sh
[ "$1" != install ] || set -- "$@" --values "$SANDBOX_VALUES"
exec "$HELM" "$@"
`

async function createShell(t: Test, sandbox: HelmSandbox): Promise<Type> {
  const folder = t.testdir({ bin: {}, home: {}, 'api-key': '', 'new-api-key': '' })
  const { apiKey } = sandbox.environment
  for (const name of ['api-key', 'new-api-key']) await writeFile(join(folder, name), apiKey)
  const { image, environmentCa, proxy } = sandbox.values()
  const values = join(folder, 'values.json')
  await writeFile(values, JSON.stringify({ image, environmentCa, proxy }))
  await symlink(join(checkout, 'charts'), join(folder, 'charts'))
  await symlink(await tool('kubectl'), join(folder, 'bin', 'kubectl'))
  await writeFile(join(folder, 'bin', 'helm'), HELM)
  await chmod(join(folder, 'bin', 'helm'), 0o755)
  const env = {
    PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
    HOME: join(folder, 'home'),
    KUBECONFIG: sandbox.controlPlane.kubeconfigFile,
    HELM: await tool('helm'),
    SANDBOX_VALUES: values,
  }
  return async line => {
    const { code, stdout, stderr } = await run({
      command: '/bin/sh',
      args: ['-c', line],
      cwd: folder,
      env,
    })
    t.comment(`$ ${line}\n${stdout}${stderr}`)
    if (code !== 0) throw new Error(`${line} ended with ${code}: ${stderr}`)
    return stdout
  }
}

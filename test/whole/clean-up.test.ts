import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { makeFolder, startProcess, waitFor } from '../../sandbox/processes.ts'
import { startSandbox } from '../../sandbox/sandbox.ts'
import { startFixture, testInvariants } from './fixture.ts'

const controller = { listEverySeconds: 5, revokeGraceSeconds: 3600 }
const fixture = await startFixture(t, startSandbox({ settings: { controller } }))
const { environment, controlPlane } = fixture

/** Runs `clean-up` beside the leader, with this key. */
async function cleanUp(apiKey: string) {
  const folder = await makeFolder('clean-up')
  t.teardown(folder.remove)
  await writeFile(join(folder.path, 'api-key'), apiKey)
  const settings = {
    domain: environment.domain,
    bluemix: {
      credentialsDirectory: folder.path,
      caFile: environment.caFile,
      organization: 'acme',
    },
    certificate: { names: ['127.0.0.1'] },
    kubernetes: { kubeconfig: await controlPlane.kubeconfigFor('pullpass', 'pullpass') },
  }
  const config = join(folder.path, 'config.yaml')
  await writeFile(config, JSON.stringify(settings))
  const running = await startProcess({
    name: 'clean-up',
    command: process.execPath,
    args: [join(import.meta.dirname, '../../src/main.ts'), 'clean-up', '--config', config],
    env: { PATH: process.env.PATH, HTTPS_PROXY: environment.gateway },
  })
  const { code } = await running.ended
  fixture.hear(running.output())
  return { code, output: running.output() }
}

await fixture.namespace('stays')
await fixture.namespace('leaves')
await fixture.whenSecret('stays')
await fixture.whenSecret('leaves')
await fixture.label('leaves', null)

t.test('with a wrong key it fails, and says why', async t => {
  fixture.confide('wrong-Kq7vZ2mB9xL4')
  const { code, output } = await cleanUp('wrong-Kq7vZ2mB9xL4')
  t.equal(code, 1)
  t.notMatch(output, /nothing to clean up/)
  t.match(output, /pullpass: .*(refuse|log in|login|key)/i)
  t.equal(fixture.liveTokens('leaves').length, 1)
})

t.test('beside the leader it takes back what no label asks for, and nothing else', async t => {
  const { code, output } = await cleanUp(environment.apiKey)
  t.equal(code, 0, output)
  t.match(output, /leaves: Secret deleted/)
  t.match(output, /leaves: token revoked/)
  t.equal(await fixture.secret('leaves'), undefined)
  t.same([fixture.liveTokens('leaves').length, fixture.liveTokens('stays').length], [0, 1])
  t.not(await fixture.secret('stays'), undefined)
})

t.test('it raises no alarm', async t => {
  const lists = environment.ledger.lists().length
  const isListed = () => environment.ledger.lists().length > lists + 2
  await waitFor(isListed, { withinMs: 60_000, what: 'two lists' })
  t.same((await fixture.pullpass.readyz()).warnings, [])
})

testInvariants(t, fixture)

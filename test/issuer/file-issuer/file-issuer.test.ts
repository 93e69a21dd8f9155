import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { startControlPlane } from '../../../sandbox/control-plane.ts'
import { onFreePorts } from '../../../sandbox/ports.ts'
import { makeFolder, waitFor } from '../../../sandbox/processes.ts'
import { readConfig } from '../../../src/config/config.ts'
import { createKubernetesClient, unlessStatus } from '../../../src/kubernetes/client.ts'
import { createApp } from '../../../src/service.ts'
import { createFileIssuer } from './file-issuer.ts'

t.test('an issuer that reads tokens from files serves namespaces like the default one', async t => {
  const folder = await makeFolder('file-issuer')
  t.teardown(() => folder.remove())
  await writeFile(join(folder.path, 'acme'), 'token-of-acme\n')
  await writeFile(join(folder.path, 'umbrella'), 'token-of-umbrella\n')
  const { client } = await startServing(t, folder.path)
  const tokenIn = async (namespace: string) => {
    const reading = client.core.readNamespacedSecret({ name: 'pullpass-registry', namespace })
    const { data } = (await unlessStatus([404], 'read a Secret', reading)) ?? {}
    const text = Buffer.from(data?.['.dockerconfigjson'] ?? '', 'base64').toString()
    return text === '' ? undefined : JSON.parse(text).auths['registry.d.example.com'].password
  }
  for (const [namespace, token] of [
    ['shop', 'token-of-acme'],
    ['lab', 'token-of-umbrella'],
  ] as const) {
    const labels = { 'pullpass.io/inject': 'enabled' }
    await client.core.createNamespace({ body: { metadata: { name: namespace, labels } } })
    await waitFor(async () => (await tokenIn(namespace)) !== undefined, {
      withinMs: 60_000,
      what: `the Secret in ${namespace}`,
    })
    t.equal(await tokenIn(namespace), token)
  }
})

/** The program, with the issuer, as administrator of its own control plane. */
async function startServing(t: Test, directory: string) {
  const plane = await startControlPlane()
  t.teardown(() => plane.stop())
  const kubeConfig = plane.kubeConfig()
  const client = createKubernetesClient({ kubeConfig }, { timeoutMs: 10_000 })
  t.teardown(() => client.close())
  await client.core.createNamespace({ body: { metadata: { name: 'pullpass' } } })
  const app = await onFreePorts(async (webhook, operations) => {
    const app = createApp(
      {
        kubeConfig,
        logger: pino({ level: 'silent' }),
        createIssuer: () => createFileIssuer({ directory, checkMs: 1000 }),
      },
      { config: configOf(webhook, operations), identity: 'file-issuer-test' },
    )
    await app.start()
    return app
  })
  t.teardown(() => app.stop())
  return { client }
}

function configOf(webhook: number, operations: number) {
  const settings = {
    domain: 'd.example.com',
    bluemix: { organization: 'acme', namespaceOrganizations: { lab: 'umbrella' } },
    admission: { address: '127.0.0.1', port: webhook },
    operations: { address: '127.0.0.1', port: operations },
    certificate: { names: ['127.0.0.1'] },
    shutdown: { drainMs: 0 },
  }
  return readConfig(JSON.stringify(settings), {})
}

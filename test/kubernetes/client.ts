import { readFile, rename, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { KubeConfig, PatchStrategy, setHeaderOptions } from '@kubernetes/client-node'
import { Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { startFaultProxy } from '../../sandbox/fault-proxy.ts'
import { makeFolder } from '../../sandbox/processes.ts'
import {
  asKubernetesError,
  createKubernetesClient,
  KubernetesError,
} from '../../src/kubernetes/client.ts'
import { answeredError } from '../../src/kubernetes/errors.ts'
import { loadKubeConfig, readCredentials } from '../../src/kubernetes/kube-config.ts'
import { sharedControlPlane } from './control-plane.ts'

t.test('an error of the API server contains its reason, but no object data', async t => {
  const said = (status: number, body: unknown, headers = {}) =>
    answeredError('apply Secret shop/pull', status, { headers, body })
  const forbidden = (message: string) =>
    said(403, { kind: 'Status', reason: 'Forbidden', message }).message
  const rbac =
    'User "system:serviceaccount:p:p" cannot patch resource "secrets" in API group "" in the namespace "shop"'
  t.equal(
    forbidden(`secrets "pull" is forbidden: ${rbac}: RBAC: role "x" not found`),
    `cannot apply Secret shop/pull: HTTP 403 Forbidden: ${rbac}; grant {apiGroups: [""], resources: ["secrets"], verbs: ["patch"]}`,
  )
  t.equal(
    forbidden('denied by policy: .data is hunter2'),
    'cannot apply Secret shop/pull: HTTP 403 Forbidden',
  )
  t.equal(said(500, '<html>hunter2</html>').message, 'cannot apply Secret shop/pull: HTTP 500')
  t.equal(said(422, { kind: 'Status', reason: 'Invalid', message: 'hunter2' }).reason, 'Invalid')
  t.equal(said(429, '', { 'retry-after': '7' }).retryAfterMs, 7000)
  const details = { retryAfterSeconds: 2, causes: [{ reason: 'A' }, {}] }
  t.match(said(504, { kind: 'Status', details }), { retryAfterMs: 2000, causes: ['A'] })
  t.equal(said(503, '', { 'retry-after': 'Thu, 01 Jan 2026 00:00:00 GMT' }).retryAfterMs, undefined)
})

t.test('a network error is translated into one sentence', async t => {
  const translated = (error: unknown) => asKubernetesError('list pods', error)
  const refused = Object.assign(new Error('hunter2'), { code: 'ECONNREFUSED' })
  t.match(translated(new TypeError('fetch failed', { cause: refused })), {
    message: 'cannot list pods: ECONNREFUSED',
    reason: 'ECONNREFUSED',
    status: undefined,
  })
  t.equal(translated(new Error('hunter2')).message, 'cannot list pods: Error')
  t.equal(translated('hunter2').message, 'cannot list pods: unknown error')
  t.equal(
    translated(new DOMException('', 'TimeoutError')).message,
    'cannot list pods: no answer in time',
  )
  const known = new KubernetesError('as it was')
  t.equal(translated(known), known)
})

t.test('credentials come from the place that the kubeconfig names', async t => {
  const folder = await makeFolder('test-kubeconfig')
  t.teardown(() => folder.remove())
  const file = join(folder.path, 'kubeconfig')
  const script = `console.log(JSON.stringify({apiVersion:'client.authentication.k8s.io/v1',kind:'ExecCredential',status:{token:'from-program'}}))`
  const exec = {
    apiVersion: 'client.authentication.k8s.io/v1',
    command: process.execPath,
    args: ['-e', script],
  }
  const pem = (text: string) => Buffer.from(text).toString('base64')
  const users = {
    token: { token: 'plain' },
    file: { tokenFile: 'the-token' },
    exec: { exec },
    basic: { username: 'u', password: 'p' },
    certificate: { 'client-certificate-data': pem('cert'), 'client-key-data': pem('key') },
  }
  await writeFile(join(folder.path, 'the-token'), 'from-file\n')
  const of = async (user: keyof typeof users) => {
    const config = {
      clusters: [
        {
          name: 'c',
          cluster: { server: 'https://localhost:1', 'certificate-authority-data': pem('ca') },
        },
      ],
      users: [{ name: user, user: users[user] }],
      contexts: [{ name: 'x', context: { cluster: 'c', user } }],
      'current-context': 'x',
    }
    await writeFile(file, JSON.stringify(config))
    return readCredentials(loadKubeConfig(file, {}))
  }
  t.equal((await of('token')).headers.Authorization, 'Bearer plain')
  t.equal((await of('exec')).headers.Authorization, 'Bearer from-program')
  t.equal((await of('basic')).headers.Authorization, 'Basic dTpw')
  t.same((await of('certificate')).tls, {
    ca: Buffer.from('ca'),
    cert: Buffer.from('cert'),
    key: Buffer.from('key'),
  })
  t.equal((await of('file')).headers.Authorization, 'Bearer from-file')
  await unlink(join(folder.path, 'the-token'))
  await t.rejects(of('file'), { code: 'ENOENT' })
})

t.test('the client works with a real API server', async t => {
  const plane = await sharedControlPlane()

  /** A client that goes through a proxy of its own. */
  async function connect(t: Test, options: { timeoutMs?: number; base?: KubeConfig } = {}) {
    const { timeoutMs = 10_000, base = plane.kubeConfig() } = options
    const proxy = await startFaultProxy(plane)
    const kubeConfig = new KubeConfig()
    kubeConfig.loadFromString(proxy.kubeconfig(base))
    const metrics = new Registry()
    const client = createKubernetesClient({ kubeConfig, metrics }, { timeoutMs })
    t.teardown(async () => {
      await client.close()
      await proxy.stop()
    })
    return { client, proxy, metrics, kubeConfig }
  }

  t.test('hundreds of requests share a few connections', async t => {
    const { client, proxy, metrics } = await connect(t)
    for (let n = 0; n < 100; n++) await client.core.readNamespace({ name: 'default' })
    t.ok(proxy.connections() <= 2, `${proxy.connections()} connections`)
    await Promise.all(Array.from({ length: 100 }, () => client.core.listNamespace()))
    t.ok(proxy.connections() <= 24, `${proxy.connections()} connections`)
    const text = await metrics.metrics()
    t.match(text, '{method="GET",code="200"} 200')
    t.ok(proxy.requests.every(({ userAgent }) => userAgent === 'pullpass'))
  })

  t.test('no request waits forever, and one dead connection closes the others', async t => {
    const { client, proxy, metrics } = await connect(t, { timeoutMs: 500 })
    await Promise.all([1, 2, 3, 4].map(() => client.core.listNamespace()))
    proxy.freeze()
    const began = performance.now()
    const error = await client.core.listNamespace().catch(e => asKubernetesError('list', e))
    t.match(error, { name: 'KubernetesError', message: 'cannot list: no answer in time' })
    t.ok(performance.now() - began < 1_000)
    await client.core.listNamespace()
    t.match(await metrics.metrics(), '{method="GET",code="failed"} 1')
    proxy.fault(() => true, 'swallow', 1)
    const signal = AbortSignal.timeout(5_000)
    const opened = client.open('/api/v1/namespaces', {}, { signal })
    await t.rejects(
      opened.catch(e => {
        throw asKubernetesError('open', e)
      }),
      {
        message: /^cannot open: /,
      },
    )
    t.equal(signal.aborted, false, 'the client has a limit of its own')
  })

  t.test('a response can be read while it arrives', async t => {
    const { client, metrics } = await connect(t)
    const signal = AbortSignal.timeout(5_000)
    const list = await client.open('/api/v1/namespaces', { limit: '1' }, { signal })
    t.equal(list.status, 200)
    t.match(JSON.parse(await list.body.text()), { kind: 'NamespaceList', items: [{}] })
    const watch = await client.open('/api/v1/namespaces', { watch: 'true' }, { signal })
    for await (const chunk of watch.body) {
      t.match(Buffer.from(chunk).toString(), /"type":"ADDED"/)
      break
    }
    t.match(await metrics.metrics(), '{method="GET",code="200"} 2')
    const missing = await client.open('/api/v1/nothings', {}, { signal })
    t.equal(missing.status, 404)
    missing.body.destroy()
  })

  t.test('a CA or token that is wrong for a moment fails only that request', async t => {
    const { proxy } = await connect(t)
    const folder = await makeFolder('test-rotation')
    t.teardown(() => folder.remove())
    const [caFile, tokenFile] = [join(folder.path, 'ca.crt'), join(folder.path, 'token')]
    const kubeConfig = new KubeConfig()
    kubeConfig.loadFromClusterAndUser(
      { name: 'inCluster', server: proxy.url, caFile, skipTLSVerify: false },
      { name: 'inClusterUser', authProvider: { name: 'tokenFile', config: { tokenFile } } },
    )
    const client = createKubernetesClient({ kubeConfig }, { timeoutMs: 2_000 })
    t.teardown(() => client.close())
    const reason = () =>
      client.core.listNamespace().then(
        () => 'ok',
        error => asKubernetesError('list', error).reason ?? asKubernetesError('list', error).status,
      )
    const token = plane.kubeConfig().getCurrentUser()?.token ?? ''
    t.equal(await reason(), 'ENOENT')
    await writeFile(caFile, proxy.ca)
    t.equal(await reason(), 'ENOENT')
    await writeFile(tokenFile, token)
    t.equal(await reason(), 'ok')
    await unlink(tokenFile)
    t.equal(await reason(), 'ENOENT')
    await writeFile(tokenFile, 'expired')
    t.equal(await reason(), 401)
    await writeFile(tokenFile, token)
    t.equal(await reason(), 'ok')
    await writeFile(caFile, plane.ca)
    t.not(await reason(), 'ok', 'signed by another')
    await writeFile(caFile, 'not a certificate')
    t.not(await reason(), 'ok')
    await unlink(caFile)
    t.equal(await reason(), 'ENOENT')
    await writeFile(`${caFile}.new`, proxy.ca)
    await rename(`${caFile}.new`, caFile)
    t.equal(await reason(), 'ok')
    t.equal(await readFile(tokenFile, 'utf8'), token)
  })

  t.test('errors of the API server are reported with their reasons', async t => {
    const { client, proxy } = await connect(t)
    const metadata = { name: 'refused' }
    await client.core.createNamespace({ body: { metadata } })
    const inNamespace = { namespace: 'refused', name: 'refused' }
    await client.core.createNamespacedSecret({ namespace: 'refused', body: { metadata } })
    const translated = async (call: Promise<unknown>) => {
      try {
        await call
        return undefined
      } catch (error) {
        return asKubernetesError('do it', error)
      }
    }
    t.match(
      await translated(
        client.core.createNamespacedSecret({ namespace: 'refused', body: { metadata } }),
      ),
      {
        status: 409,
        reason: 'AlreadyExists',
      },
    )
    const apply = (fieldManager: string, value: string) =>
      client.core.patchNamespacedSecret(
        {
          ...inNamespace,
          fieldManager,
          body: { apiVersion: 'v1', kind: 'Secret', metadata, stringData: { a: value } },
        },
        setHeaderOptions('Content-Type', PatchStrategy.ServerSideApply),
      )
    await apply('one', 'hunter1')
    const conflict = await translated(apply('two', 'hunter2'))
    t.match(conflict, { status: 409, reason: 'Conflict', causes: ['FieldManagerConflict'] })
    await client.core.deleteNamespace({ name: 'refused' })
    const late = client.core.createNamespacedSecret({
      namespace: 'refused',
      body: { metadata: { name: 'late' } },
    })
    t.match(await translated(late), { status: 403, causes: ['NamespaceTerminating'] })
    t.match(await translated(client.core.readNamespacedSecret({ ...inNamespace, name: 'none' })), {
      status: 404,
      reason: 'NotFound',
    })
    proxy.fault(() => true, { status: 429, headers: { 'retry-after': '3' }, body: {} }, 1)
    t.match(await translated(client.core.listNamespace()), { status: 429, retryAfterMs: 3000 })
    await client.core.createNamespacedServiceAccount({
      namespace: 'default',
      body: { metadata: { name: 'nobody' } },
    })
    const base = loadKubeConfig(await plane.kubeconfigFor('default', 'nobody'), {})
    const nobody = await connect(t, { base })
    const denied = await translated(nobody.client.core.readNamespacedSecret(inNamespace))
    t.equal(
      denied?.message,
      'cannot do it: HTTP 403 Forbidden: User "system:serviceaccount:default:nobody" cannot get resource "secrets" in API group "" in the namespace "refused"; grant {apiGroups: [""], resources: ["secrets"], resourceNames: ["refused"], verbs: ["get"]}',
    )
  })

  t.test('closing the client ends requests in progress', async t => {
    const { client, proxy } = await connect(t)
    proxy.fault(() => true, 'swallow')
    const pending = t.rejects(client.core.listNamespace())
    const signal = new AbortController().signal
    const opening = t.rejects(client.open('/api/v1/secrets', { watch: 'true' }, { signal }))
    await new Promise(resolve => setTimeout(resolve, 100))
    await client.close()
    await pending
    await opening
    t.equal(proxy.connections(), 0)
    await t.rejects(client.core.listNamespace(), { name: 'KubernetesError' })
  })
})

import { chmod, copyFile, mkdir } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import {
  AdmissionregistrationV1Api,
  AppsV1Api,
  BatchV1Api,
  CoreV1Api,
  RbacAuthorizationV1Api,
  type V1Container,
  type V1Pod,
  type V1PodSpec,
} from '@kubernetes/client-node'
import { generate } from 'selfsigned'
import t, { type Test } from 'tap'
import { type ControlPlane, startControlPlane } from '../../sandbox/control-plane.ts'
import { realAddress } from '../../sandbox/node/addresses.ts'
import { obstacleToExec } from '../../sandbox/node/exec.ts'
import { startClusterEgress } from '../../sandbox/node/network/cluster-egress.ts'
import { startServiceBalancer } from '../../sandbox/node/network/service-balancer.ts'
import { startNode } from '../../sandbox/node/node.ts'
import { makeFolder, waitFor } from '../../sandbox/processes.ts'

const IMAGE = 'registry.example.com/greeter:1'
const COVERED = 'registry.example.com/greeter:2'
const CLOSED = 'registry.example.com/greeter:3'
const namespace = 'shop'
const program = {
  command: [process.execPath, fileURLToPath(new URL('fixtures/greeter.ts', import.meta.url))],
  args: ['serve'],
  workingDirectory: fileURLToPath(new URL('../..', import.meta.url)),
  user: 65532,
  environment: (address: string) => ({ ADDRESS: address }),
}

t.test('the node runs pods as processes', async t => {
  const controlPlane = await startControlPlane({ controllerManager: true })
  t.teardown(() => controlPlane.stop())
  const kubeConfig = controlPlane.kubeConfig()
  const egress = await startClusterEgress({ kubeConfig, socket: controlPlane.egressSocket })
  t.teardown(() => egress.stop())
  const core = kubeConfig.makeApiClient(CoreV1Api)
  const apps = kubeConfig.makeApiClient(AppsV1Api)
  await core.createNamespace({ body: { metadata: { name: namespace } } })
  const there = async () =>
    core.readNamespacedServiceAccount({ name: 'default', namespace }).then(
      () => true,
      () => false,
    )
  await waitFor(there, { withinMs: 10_000, what: 'the ServiceAccount' })
  const lying = await makeFolder('image')
  t.teardown(() => lying.remove())
  await chmod(lying.path, 0o755)
  await copyFile(program.command[1] ?? '', join(lying.path, 'greeter.ts'))
  const covered = {
    ...program,
    command: [process.execPath, join(lying.path, 'greeter.ts')],
    workingDirectory: lying.path,
  }
  const shut = await makeFolder('closed')
  t.teardown(() => shut.remove())
  const below = join(shut.path, 'program')
  await mkdir(below)
  await copyFile(program.command[1] ?? '', join(below, 'greeter.ts'))
  const closed = {
    ...program,
    command: [process.execPath, join(below, 'greeter.ts')],
    workingDirectory: below,
  }
  const rhythm = { backOff: { first: 400, most: 2000 }, renewTokensAt: 0.001 }
  const node = await startNode({
    kubeConfig,
    namespace,
    programs: { [IMAGE]: program, [COVERED]: covered, [CLOSED]: closed },
    rhythm,
  })
  t.teardown(() => node.stop())

  const settings = { name: 'settings', namespace }
  await core.createNamespacedConfigMap({
    namespace,
    body: { metadata: settings, data: { greeting: 'hello' } },
  })
  await core.createNamespacedSecret({
    namespace,
    body: { metadata: { name: 'key', namespace }, stringData: { key: 'open sesame' } },
  })

  async function read(name: string): Promise<V1Pod> {
    return core.readNamespacedPod({ name, namespace })
  }
  async function gone(name: string): Promise<boolean> {
    return read(name).then(
      () => false,
      () => true,
    )
  }
  async function until(name: string, what: string, holds: (pod: V1Pod) => boolean): Promise<V1Pod> {
    const seen: V1Pod[] = []
    const condition = async () => {
      const pod = await read(name)
      seen.unshift(pod)
      return holds(pod)
    }
    await waitFor(condition, { withinMs: 30_000, what: `${name} ${what}` })
    return seen[0] as V1Pod
  }
  async function create(name: string, spec: Partial<V1PodSpec>, container: Partial<V1Container>) {
    const labels = { app: name }
    await core.createNamespacedPod({
      namespace,
      body: { metadata: { name, labels }, spec: podSpec(spec, container) },
    })
  }
  async function events(name: string): Promise<string[]> {
    const fieldSelector = `involvedObject.name=${name}`
    const { items } = await core.listNamespacedEvent({ namespace, fieldSelector })
    return items.map(({ reason, message }) => `${reason}: ${message}`)
  }

  await t.test('a pod gets everything that its spec says', async t => {
    await create(
      'full',
      {
        securityContext: { runAsNonRoot: true, fsGroup: 2000 },
        volumes: [
          { name: 'settings', configMap: { name: 'settings' } },
          { name: 'key', secret: { secretName: 'key', defaultMode: 0o440 } },
          { name: 'scratch', emptyDir: {} },
          {
            name: 'about',
            downwardAPI: {
              items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }],
            },
          },
        ],
        initContainers: [{ name: 'first', image: IMAGE, args: ['end', '0'] }],
      },
      {
        args: ['serve', 'for $(NAMESPACE)', '$$(NAMESPACE)'],
        env: [
          { name: 'KEY', valueFrom: { secretKeyRef: { name: 'key', key: 'key' } } },
          {
            name: 'GREETING',
            valueFrom: { configMapKeyRef: { name: 'settings', key: 'greeting' } },
          },
          { name: 'WORDS', value: '$(GREETING), $(NAMESPACE)' },
          { name: 'MEMORY', valueFrom: { resourceFieldRef: { resource: 'limits.memory' } } },
        ],
        envFrom: [{ prefix: 'all_', configMapRef: { name: 'settings' } }],
        resources: { limits: { memory: '64Mi' } },
        securityContext: { readOnlyRootFilesystem: true, allowPrivilegeEscalation: false },
        volumeMounts: [
          { name: 'settings', mountPath: '/etc/greeter/settings', readOnly: true },
          { name: 'settings', mountPath: '/etc/greeter/one', subPath: 'greeting' },
          { name: 'key', mountPath: '/etc/greeter/key' },
          { name: 'scratch', mountPath: '/tmp' },
          { name: 'about', mountPath: '/about' },
        ],
      },
    )
    const pod = await until('full', 'to be ready', isReady)
    const ask = asker(pod)
    t.equal(pod.spec?.nodeName, node.name)
    t.match(pod.status, {
      phase: 'Running',
      initContainerStatuses: [{ state: { terminated: { exitCode: 0, reason: 'Completed' } } }],
    })
    t.match(await ask('/env').then(JSON.parse), {
      KEY: 'open sesame',
      WORDS: 'hello, shop',
      all_greeting: 'hello',
      MEMORY: String(64 * 2 ** 20),
      POD: 'full',
    })
    t.match(await node.logs('full'), 'serving for shop $(NAMESPACE)')
    const who = JSON.parse(await ask('/who'))
    t.match(who, { pod: 'full', uid: 65532 })
    t.equal(await ask('/file', 'etc/greeter/key/key'), 'open sesame')
    t.equal(await ask('/file', 'etc/greeter/one'), 'hello')
    t.match(await ask('/file', 'about/labels'), 'app="full"')
    t.match(await ask('/file', 'etc/hosts'), 'localhost', 'the rest of the machine is there')
    t.equal(await ask('/write', 'tmp/x'), 'written')
    t.match(await ask('/write', 'x'), /EROFS/)
    t.match(await ask('/write', 'etc/x'), /EROFS|EACCES/)

    await core.replaceNamespacedConfigMap({
      ...settings,
      body: { metadata: settings, data: { greeting: 'good evening' } },
    })
    const current = async () =>
      (await ask('/file', 'etc/greeter/settings/greeting')) === 'good evening'
    await waitFor(current, { withinMs: 5000, what: 'the edited ConfigMap' })
    t.equal(await ask('/file', 'etc/greeter/one'), 'hello', 'a subPath stays as it was')
  })

  await t.test('a program stays visible if a volume is mounted over its folder', async t => {
    await create(
      'covered',
      { volumes: [{ name: 'scratch', emptyDir: {} }] },
      { image: COVERED, volumeMounts: [{ name: 'scratch', mountPath: '/tmp' }] },
    )
    const ask = asker(await until('covered', 'to be ready', isReady))
    t.equal(await ask('/write', 'tmp/x'), 'written')
    t.match(await ask('/write', `${lying.path}/x`), /EROFS|EACCES/)
  })

  await t.test('a program in a folder of another owner can run as another user', async t => {
    await create('closed', {}, { image: CLOSED })
    const ask = asker(await until('closed', 'to be ready', isReady))
    t.match(JSON.parse(await ask('/who')), { pod: 'closed' })
    t.equal(await ask('/file', 'proc/sys/kernel/hostname'), 'closed\n', 'its host is named for it')
  })

  await t.test(
    'the token of a pod belongs to its ServiceAccount, and is renewed in place',
    async t => {
      const rbac = kubeConfig.makeApiClient(RbacAuthorizationV1Api)
      const ask = asker(await read('full'))
      t.same(JSON.parse(await ask('/self')), { status: 403 })
      await rbac.createNamespacedRoleBinding({
        namespace,
        body: {
          metadata: { name: 'view', namespace },
          roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'view' },
          subjects: [{ kind: 'ServiceAccount', name: 'default', namespace }],
        },
      })
      const allowed = async () => JSON.parse(await ask('/self')).status === 200
      await waitFor(allowed, { withinMs: 5000, what: 'the right to read' })
      const file = 'var/run/secrets/kubernetes.io/serviceaccount/token'
      const first = await ask('/file', file)
      const renewed = async () => (await ask('/file', file)) !== first
      await waitFor(renewed, { withinMs: 10_000, what: 'another token' })
      t.ok(await allowed())
    },
  )

  await t.test('a Deployment becomes ready, and an unready pod gets no new connection', async t => {
    const labels = { app: 'greeter' }
    const liveness = {
      livenessProbe: { tcpSocket: { port: 8080 } },
      startupProbe: { exec: { command: ['true'] } },
    }
    await apps.createNamespacedDeployment({
      namespace,
      body: {
        metadata: { name: 'greeter', namespace },
        spec: {
          replicas: 2,
          selector: { matchLabels: labels },
          template: {
            metadata: { labels },
            spec: podSpec({}, liveness),
          },
        },
      },
    })
    await core.createNamespacedService({
      namespace,
      body: {
        metadata: { name: 'greeter', namespace },
        spec: { selector: labels, ports: [{ name: 'http', port: 80, targetPort: 'http' }] },
      },
    })
    const deployed = async () =>
      (await apps.readNamespacedDeployment({ name: 'greeter', namespace })).status
        ?.availableReplicas === 2
    await waitFor(deployed, { withinMs: 30_000, what: 'two replicas' })
    const balancer = await startServiceBalancer({
      kubeConfig,
      namespace,
      service: 'greeter',
      port: 80,
    })
    t.teardown(() => balancer.stop())
    const answering = async () => {
      const answers = await Promise.all(
        [1, 2, 3, 4].map(() => ask('127.0.0.1', balancer.port, '/who')),
      )
      return new Set(answers.map(answer => JSON.parse(answer).pod as string))
    }
    // The Deployment can be available a moment before the Service's endpoints tell of both.
    const bothAnswer = async () =>
      answering().then(
        ({ size }) => size === 2,
        () => false,
      )
    await waitFor(bothAnswer, { withinMs: 10_000, what: 'both to answer' })
    const [out = '', left = ''] = await answering()
    await asker(await read(out))('/unready')
    const onlyOne = async () => (await answering()).size === 1
    await waitFor(onlyOne, { withinMs: 10_000, what: 'one to be left out' })
    t.same(await answering(), new Set([left]))
    await asker(await read(out))('/ready')
    await waitFor(async () => !(await onlyOne()), { withinMs: 10_000, what: 'both again' })
  })

  await t.test('a pod ends with preStop, then SIGTERM, then SIGKILL after the grace', async t => {
    const preStop = { httpGet: { path: '/prestop', port: 'http' } }
    await create('polite', { terminationGracePeriodSeconds: 20 }, { lifecycle: { preStop } })
    await create(
      'stubborn',
      { terminationGracePeriodSeconds: 1 },
      {
        env: [{ name: 'SLOW_MS', value: '600000' }],
        lifecycle: { preStop: { sleep: { seconds: 1 } } },
      },
    )
    await until('polite', 'to be ready', isReady)
    await until('stubborn', 'to be ready', isReady)
    for (const name of ['polite', 'stubborn']) await core.deleteNamespacedPod({ name, namespace })
    await waitFor(() => gone('polite'), { withinMs: 10_000, what: 'polite to be gone' })
    t.match(await node.logs('polite'), /preStop\nSIGTERM\nbye/)
    const begun = performance.now()
    await waitFor(() => gone('stubborn'), { withinMs: 10_000, what: 'stubborn to be gone' })
    t.ok(performance.now() - begun < 6000)
    t.match(await node.logs('stubborn'), 'SIGTERM')
    t.notMatch(await node.logs('stubborn'), 'bye')
    t.equal(node.pid('stubborn', 'main'), undefined)
  })

  const skip = obstacleToExec() ?? false
  await t.test(
    'kubectl exec runs a command with the environment of the container',
    { skip },
    async t => {
      await create('spoken-to', {}, { env: [{ name: 'WORD', value: 'hello' }] })
      await until('spoken-to', 'to be ready', isReady)
      const exec = (...command: string[]) =>
        controlPlane.kubectl('exec', '-n', namespace, 'spoken-to', '--', ...command)
      const said = await exec('/bin/sh', '-c', 'echo $WORD of $(id -u); echo aside >&2; exit 3')
      t.match(said, { code: 3, stdout: 'hello of 65532\n', stderr: /^aside$/m })
      t.match(said.stderr, 'command terminated with exit code 3')
      t.match(await exec('true'), { code: 0, stdout: '' })
      const typing = ['exec', '-n', namespace, '-i', 'spoken-to', '--', 'cat']
      t.match((await controlPlane.kubectl(...typing)).stderr, 'this node cannot run a command with')
    },
  )

  await t.test('a container that crashes is started again after growing pauses', async t => {
    await create('crashing', {}, { args: ['end', '7'] })
    const pod = await until(
      'crashing',
      'to be backed off',
      pod => restarts(pod) >= 3 && containerOf(pod)?.state?.waiting?.reason === 'CrashLoopBackOff',
    )
    t.equal(containerOf(pod)?.lastState?.terminated?.exitCode, 7)
    t.match(containerOf(pod)?.state?.waiting?.message, /back-off (1.6|2)s restarting/)
    t.equal(isReady(pod), false)
    await asker(await read('full'))('/die')
    const again = await until('full', 'to run again', pod => restarts(pod) === 1 && isReady(pod))
    t.match(containerOf(again)?.lastState, { terminated: { exitCode: 3, reason: 'Error' } })
  })

  await t.test('a container whose liveness probe fails is killed and started again', async t => {
    const livenessProbe = {
      httpGet: { path: '/readyz', port: 8080 },
      periodSeconds: 1,
      failureThreshold: 2,
    }
    const startupProbe = { ...livenessProbe, failureThreshold: 30 }
    await create('ill', {}, { livenessProbe, startupProbe })
    await asker(await until('ill', 'to be ready', isReady))('/unready')
    await until('ill', 'to be started again', pod => restarts(pod) === 1)
    const reported = (await events('ill')).join('\n')
    t.match(reported, /Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 503/)
    t.match(reported, /Killing: Container main failed liveness probe, will be restarted/)
  })

  await t.test('the node refuses a pod that it does not understand, with the reason', async t => {
    await create(
      'foreign',
      { volumes: [{ name: 'host', hostPath: { path: '/etc' } }], hostIPC: true },
      {},
    )
    const { status } = await until(
      'foreign',
      'to be refused',
      pod => pod.status?.reason !== undefined,
    )
    t.match(status, {
      phase: 'Pending',
      reason: 'NotUnderstood',
      message: /volumes\[0\].hostPath is not understood.*hostIPC: this node can do false, not true/,
    })
    t.ok((await events('foreign')).some(event => event.includes('hostPath is not understood')))
    await core.deleteNamespacedPod({ name: 'foreign', namespace })
    await waitFor(() => gone('foreign'), { withinMs: 10_000, what: 'foreign to be gone' })
  })

  await t.test('the node reports a bad image, Secret or user as the kubelet does', async t => {
    await create('unknown', {}, { image: 'registry.example.com/other:1' })
    await create(
      'keyless',
      {},
      { env: [{ name: 'K', valueFrom: { secretKeyRef: { name: 'late', key: 'k' } } }] },
    )
    await create('rooted', { securityContext: { runAsUser: 0, runAsNonRoot: true } }, {})
    const reason = (pod: V1Pod) => containerOf(pod)?.state?.waiting?.reason
    const unknown = await until('unknown', 'to say so', pod => reason(pod) === 'ErrImagePull')
    t.match(containerOf(unknown)?.state?.waiting?.message, /no program for image .*other:1/)
    const keyless = await until(
      'keyless',
      'to say so',
      pod => reason(pod) === 'CreateContainerConfigError',
    )
    t.equal(containerOf(keyless)?.state?.waiting?.message, 'Secret late is not there')
    await until('rooted', 'to say so', pod => reason(pod) === 'CreateContainerConfigError')
    await core.createNamespacedSecret({
      namespace,
      body: { metadata: { name: 'late' }, stringData: { k: 'v' } },
    })
    await until('keyless', 'to run when it is there', isReady)
  })

  await t.test('a Job completes, and a failed Job is reported as failed', async () => {
    const batch = kubeConfig.makeApiClient(BatchV1Api)
    for (const [name, code] of [
      ['fine', '0'],
      ['poor', '1'],
    ] as const) {
      const spec = podSpec({ restartPolicy: 'Never' }, { args: ['end', code] })
      const body = { metadata: { name }, spec: { backoffLimit: 0, template: { spec } } }
      await batch.createNamespacedJob({ namespace, body })
    }
    const condition = (name: string, type: string) => async () => {
      const { status } = await batch.readNamespacedJob({ name, namespace })
      return (
        status?.conditions?.some(known => known.type === type && known.status === 'True') === true
      )
    }
    await waitFor(condition('fine', 'Complete'), { withinMs: 20_000, what: 'the Job to complete' })
    await waitFor(condition('poor', 'Failed'), { withinMs: 20_000, what: 'the Job to fail' })
  })

  await t.test('the API server reaches a webhook through its Service', t =>
    webhookByService(t, controlPlane, create),
  )
})

async function webhookByService(
  t: Test,
  controlPlane: ControlPlane,
  create: (
    name: string,
    spec: Partial<V1PodSpec>,
    container: Partial<V1Container>,
  ) => Promise<void>,
): Promise<void> {
  const kubeConfig = controlPlane.kubeConfig()
  const core = kubeConfig.makeApiClient(CoreV1Api)
  const hooks = kubeConfig.makeApiClient(AdmissionregistrationV1Api)
  const { private: key, cert } = await generate([{ name: 'commonName', value: 'hook' }], {
    algorithm: 'sha256',
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'subjectAltName', altNames: [{ type: 2, value: `hook.${namespace}.svc` }] },
    ],
  })
  const stringData = { 'tls.key': key, 'tls.crt': cert }
  await core.createNamespacedSecret({ namespace, body: { metadata: { name: 'tls' }, stringData } })
  const ports = [{ port: 443, targetPort: 8443 }]
  await core.createNamespacedService({
    namespace,
    body: { metadata: { name: 'hook' }, spec: { selector: { app: 'hook' }, ports } },
  })
  const volumes = [{ name: 'tls', secret: { secretName: 'tls' } }]
  const volumeMounts = [{ name: 'tls', mountPath: '/tls' }]
  await create('hook', { volumes }, { volumeMounts, env: [{ name: 'TLS', value: 'yes' }] })
  await hooks.createValidatingWebhookConfiguration({
    body: {
      metadata: { name: 'hook' },
      webhooks: [
        {
          name: 'hook.shop.example.com',
          admissionReviewVersions: ['v1'],
          sideEffects: 'None',
          failurePolicy: 'Ignore',
          timeoutSeconds: 5,
          rules: [
            {
              apiGroups: [''],
              apiVersions: ['v1'],
              operations: ['CREATE'],
              resources: ['configmaps'],
            },
          ],
          clientConfig: {
            service: { namespace, name: 'hook', path: '/admit' },
            caBundle: Buffer.from(cert).toString('base64'),
          },
        },
      ],
    },
  })
  const seen = async () => {
    const { stderr } = await controlPlane.kubectl(
      ...['create', 'configmap', 'any', '-n', namespace, '--dry-run=server'],
    )
    return stderr.includes('Warning: seen by hook')
  }
  await waitFor(seen, { withinMs: 20_000, what: 'the webhook to be called' })
  t.pass('kubectl shows the warning of the pod')
}

function podSpec(spec: Partial<V1PodSpec>, container: Partial<V1Container>): V1PodSpec {
  const own = ({ env, ...rest }: Partial<V1Container>): V1Container => ({
    name: 'main',
    image: IMAGE,
    ports: [{ name: 'http', containerPort: 8080 }],
    readinessProbe: {
      httpGet: { path: '/readyz', port: 'http' },
      periodSeconds: 1,
      failureThreshold: 1,
    },
    env: [
      { name: 'POD', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      { name: 'NAMESPACE', valueFrom: { fieldRef: { fieldPath: 'metadata.namespace' } } },
      ...(env ?? []),
    ],
    ...rest,
  })
  return { terminationGracePeriodSeconds: 2, ...spec, containers: [own(container)] }
}

function isReady({ status }: V1Pod): boolean {
  return (
    status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true
  )
}

function containerOf({ status }: V1Pod) {
  return status?.containerStatuses?.[0]
}

function restarts(pod: V1Pod): number {
  return containerOf(pod)?.restartCount ?? 0
}

/** Sends an HTTP request to the program of a pod; a refused connection is a result too. */
function asker({ status }: V1Pod): (path: string, file?: string) => Promise<string> {
  return (path, file) => ask(realAddress(status?.podIP ?? ''), 8080, path, file)
}

async function ask(host: string, port: number, path: string, file = ''): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const options = { host, port, path, headers: { 'x-file': file }, agent: false as const }
  request(options, response => text(response).then(resolve, reject))
    .on('error', reject)
    .end()
  return promise
}

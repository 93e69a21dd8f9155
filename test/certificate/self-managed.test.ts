import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { KubeConfig } from '@kubernetes/client-node'
import pino from 'pino'
import { Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { startControlPlane } from '../../sandbox/control-plane.ts'
import { makeFolder, waitFor } from '../../sandbox/processes.ts'
import { begun, caSecret, readCa, trustedCertificates } from '../../src/certificate/ca.ts'
import { createCaBundle } from '../../src/certificate/ca-bundle.ts'
import { isTrusted, parseCertificate } from '../../src/certificate/certificate.ts'
import { type CertificateClock, createManagedCa } from '../../src/certificate/keep-ca.ts'
import { createSelfManagedCertificate } from '../../src/certificate/self-managed.ts'
import type { CertificateSource } from '../../src/certificate/served-pair.ts'
import { makeCa, signLeaf } from '../../src/certificate/sign.ts'
import { createCertificateSource } from '../../src/certificate/source.ts'
import { createKubernetesClient, type KubernetesClient } from '../../src/kubernetes/client.ts'

// Each test has a Secret and a configuration of its own name.
t.jobs = 3
const plane = await startControlPlane()
t.teardown(() => plane.stop())
const admin = connectAs(t, plane.kubeConfig())
const namespace = 'pullpass'
await admin.core.createNamespace({ body: { metadata: { name: namespace } } })
await admin.core.createNamespacedServiceAccount({
  namespace: 'default',
  body: { metadata: { name: 'default' } },
})

function connectAs(t: Pick<Test, 'teardown'>, kubeConfig: KubeConfig) {
  const client = createKubernetesClient({ kubeConfig }, { timeoutMs: 10_000 })
  t.teardown(() => client.close())
  return client
}

/** A clock that agrees with the API server's. */
function clockAt(now: () => Date) {
  return { now, local: now, isMeasured: () => true }
}
const right = clockAt(() => new Date())

interface Line {
  time: number
  msg: string
  step?: string
  secret?: string
}

interface ReplicaOptions {
  client?: KubernetesClient
  clock?: CertificateClock
  leafSeconds?: number
  caSeconds?: number
}

/** A replica with names of its own, so that tests do not meet; `log` is what it wrote. */
function replica(t: Test, name: string, options: ReplicaOptions = {}) {
  const { client = admin, clock = right, leafSeconds = 3600, caSeconds = 36_000 } = options
  const log: Line[] = []
  const logger = pino({}, { write: line => void log.push(JSON.parse(line)) })
  const source = createSelfManagedCertificate(
    { client, clock, logger, metrics: new Registry() },
    {
      namespace,
      secretName: `${name}-ca`,
      webhookConfiguration: name,
      names: ['127.0.0.1'],
      leafSeconds,
      caSeconds,
      identity: `${name}-${Math.random()}`,
    },
  )
  t.teardown(() => source.stop())
  return { source, log }
}

/** A MutatingWebhookConfiguration as the chart creates it: without caBundle, and never called. */
async function configure(name: string, urls = ['https://127.0.0.1:1/'], labels = {}) {
  const webhooks = urls.map((url, index) => ({
    name: `w${index}.pullpass.io`,
    admissionReviewVersions: ['v1'],
    clientConfig: { url },
    failurePolicy: 'Fail' as const,
    sideEffects: 'NoneOnDryRun',
    objectSelector: { matchLabels: { webhook: name, ...labels } },
    rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
  }))
  await admin.admissionregistration.createMutatingWebhookConfiguration({
    body: { metadata: { name }, webhooks },
  })
}

async function bundlesIn(name: string): Promise<string[]> {
  const { webhooks } = await admin.admissionregistration.readMutatingWebhookConfiguration({ name })
  return (webhooks ?? []).map(({ clientConfig }) =>
    Buffer.from(clientConfig.caBundle ?? '', 'base64').toString(),
  )
}

async function authorityIn(name: string) {
  return readCa(await admin.core.readNamespacedSecret({ namespace, name: `${name}-ca` }))
}

const within = (what: string, withinMs = 15_000) => ({ withinMs, what })
const ready = (...sources: CertificateSource[]) =>
  waitFor(() => sources.every(source => source.ready()), within('readiness'))

/** A webhook that lets every pod pass, with the certificate of `source` as it changes. */
async function serve(t: Test, source: CertificateSource): Promise<string> {
  const server = createServer(source.current(), async (request, response) => {
    const chunks = await request.toArray()
    const { request: review } = JSON.parse(Buffer.concat(chunks).toString())
    const answer = { uid: review.uid, allowed: true }
    response.setHeader('Content-Type', 'application/json')
    // A new handshake for each review, because this test is about the certificate.
    response.setHeader('Connection', 'close')
    response.end(
      JSON.stringify({
        apiVersion: 'admission.k8s.io/v1',
        kind: 'AdmissionReview',
        response: answer,
      }),
    )
  })
  source.onChange(() => server.setSecureContext(source.current()))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

t.test('the API server trusts pullpass while serving certificate and CA change', async t => {
  const name = 'rotating'
  const lives = { leafSeconds: 6, caSeconds: 24 }
  const replicas = [replica(t, name, lives), replica(t, name, lives)]
  const sources = replicas.map(({ source }) => source)
  await Promise.all(sources.map(source => source.start()))
  const urls = await Promise.all(sources.map(source => serve(t, source)))
  await configure(name, urls)
  await waitFor(async () => (await bundlesIn(name)).every(Boolean), within('the caBundle'))
  await ready(...sources)

  const create = () =>
    admin.core.createNamespacedPod({
      namespace: 'default',
      dryRun: 'All',
      body: {
        metadata: { generateName: 'pod-', labels: { webhook: name } },
        spec: { containers: [{ name: 'main', image: 'busybox' }] },
      },
    })
  await waitFor(
    () =>
      create().then(
        () => true,
        () => false,
      ),
    within('the first review'),
  )

  const begin = await authorityIn(name)
  const steps = () =>
    replicas
      .flatMap(({ log }) => log.filter(({ msg }) => msg === 'CA changed'))
      .sort((one, other) => one.time - other.time)
      .map(({ step }) => step)
  const failures: string[] = []
  let created = 0
  let unready = 0
  await waitFor(
    async () => {
      await create().then(
        () => created++,
        error => failures.push(JSON.parse(error.body).message),
      )
      unready += sources.filter(source => !source.ready()).length
      return steps().includes('drop-older')
    },
    within('a whole rotation', 60_000),
  )

  t.strictSame(failures, [])
  t.equal(unready, 0, 'ready throughout')
  t.strictSame(steps(), ['add-next', 'sign-with-next', 'drop-older'], 'each step taken once')
  const after = await authorityIn(name)
  t.not(after.signing.cert, begin.signing.cert)
  t.notOk(trustedCertificates(after).includes(begin.signing.cert))
  for (const { source, log } of replicas) {
    t.ok(log.filter(({ msg }) => msg === 'certificate signed').length >= 5, 'leaves were renewed')
    t.ok(
      isTrusted(source.current().cert, after.signing.cert, new Date()),
      'by the new CA in the end',
    )
    t.ok(parseCertificate(source.current().cert).subjectAltName?.includes('127.0.0.1'))
  }
  t.comment(`${created} pods created, 0 refused`)
})

t.test('replicas that start at the same time agree on one CA', async t => {
  const log: Line[] = []
  for (let round = 0; round < 5; round++) {
    const secretName = `race-${round}`
    const controllers = Array.from({ length: 4 }, (_, index) =>
      createManagedCa(
        {
          client: admin,
          clock: right,
          logger: pino({}, { write: line => void log.push(JSON.parse(line)) }),
        },
        {
          namespace,
          secretName,
          identity: `replica-${index}`,
          leafSeconds: 3600,
          caSeconds: 36_000,
        },
      ),
    )
    const managedCa = await Promise.all(controllers.map(controller => controller.keep(() => false)))
    t.equal(new Set(managedCa.map(({ signing }) => signing.key)).size, 1)
    t.equal(log.filter(({ secret, step }) => secret === secretName && step === 'begin').length, 1)

    const old = new Date(Date.now() + 30_000_000)
    const steppers = controllers.map((_, index) =>
      createManagedCa(
        {
          client: admin,
          clock: clockAt(() => old),
          logger: pino({}, { write: line => void log.push(JSON.parse(line)) }),
        },
        {
          namespace,
          secretName,
          identity: `replica-${index}`,
          leafSeconds: 3600,
          caSeconds: 36_000,
        },
      ),
    )
    const stepped = await Promise.all(steppers.map(controller => controller.keep(() => false)))
    t.equal(new Set(stepped.map(trustedCertificates)).size, 1, 'and on the next')
    t.equal(
      log.filter(({ secret, step }) => secret === secretName && step === 'add-next').length,
      1,
    )
  }
})

t.test('the caBundle contains the CA in use, and is restored after a change', async t => {
  const name = 'kept'
  const { source } = replica(t, name)
  await source.start()
  await waitFor(() => source.ready(), within('readiness without a configuration'))
  t.match(source.warnings(), [/kept does not exist/])
  await sleep(100)
  const listed = await admin.admissionregistration.listMutatingWebhookConfiguration({
    fieldSelector: `metadata.name=${name}`,
  })
  t.equal(listed.items.length, 0, 'a configuration that is not there is not made')

  const trusted = async () => {
    const bundles = await bundlesIn(name)
    return bundles.every(bundle => isTrusted(source.current().cert, bundle, new Date()))
  }
  await configure(name, ['https://127.0.0.1:1/', 'https://127.0.0.1:2/'])
  await waitFor(trusted, within('the caBundle'))
  await ready(source)
  t.strictSame(source.warnings(), [])

  const byHand = ['--field-manager=somebody', '--type=json', '-p']
  const emptied = JSON.stringify([
    { op: 'replace', path: '/webhooks/1/clientConfig/caBundle', value: '' },
    { op: 'replace', path: '/webhooks/0/timeoutSeconds', value: 7 },
  ])
  const patch = ['patch', 'mutatingwebhookconfiguration', name, ...byHand, emptied]
  t.equal((await plane.kubectl(...patch)).code, 0)
  await waitFor(trusted, within('the caBundle after it was emptied'))
  const read = await admin.admissionregistration.readMutatingWebhookConfiguration({ name })
  t.equal(read.webhooks?.[0]?.timeoutSeconds, 7, 'and nothing else is touched')

  await plane.kubectl('delete', 'mutatingwebhookconfiguration', name)
  await waitFor(() => source.warnings().length === 1, within('the note'))
  t.match(source.warnings(), [/kept does not exist/])
  await configure(name)
  await waitFor(trusted, within('the caBundle of another configuration of that name'))
})

t.test('a caBundle that is older than the configuration is not written', async t => {
  const name = 'stale'
  const bundle = createCaBundle(
    { client: admin, logger: pino({ level: 'silent' }), metrics: new Registry() },
    { name },
  )
  t.teardown(() => bundle.stop())
  bundle.start()
  await configure(name)
  await waitFor(() => bundle.configuration() !== undefined, within('the configuration'))
  const stale = bundle.configuration()
  const authority = await makeCa(new Date(), 3600)
  await plane.kubectl('annotate', 'mutatingwebhookconfiguration', name, 'seen=changed')
  await bundle.put(stale, authority.cert)
  t.strictSame(await bundlesIn(name), [''])
  await plane.kubectl('delete', 'mutatingwebhookconfiguration', name)
  await bundle.put(stale, authority.cert)
  await waitFor(() => bundle.configuration() === undefined, within('its end'))
  const { code } = await plane.kubectl('get', 'mutatingwebhookconfiguration', name)
  t.equal(code, 1, 'nor made again')
})

/** What keeps the CA of one replica, without the rest of it. */
function replicaCa(name: string, clock: CertificateClock = right) {
  const log: Line[] = []
  const controller = createManagedCa(
    {
      client: admin,
      clock,
      logger: pino({}, { write: line => void log.push(JSON.parse(line)) }),
    },
    {
      namespace,
      secretName: `${name}-ca`,
      identity: `${name}-${Math.random()}`,
      leafSeconds: 3600,
      caSeconds: 36_000,
    },
  )
  return { keep: () => controller.keep(() => false), log }
}

/** The Secret of the CA with these texts in it; undefined takes a key away. */
async function damage(name: string, texts: Record<string, string | undefined>): Promise<void> {
  const secret = await admin.core.readNamespacedSecret({ namespace, name: `${name}-ca` })
  const data = { ...secret.data }
  for (const [key, text] of Object.entries(texts)) {
    if (text === undefined) delete data[key]
    else data[key] = Buffer.from(text).toString('base64')
  }
  const body = { ...secret, data }
  await admin.core.replaceNamespacedSecret({ namespace, name: `${name}-ca`, body })
}

t.test('a deleted or damaged CA is restored by a replica that knows it', async t => {
  const name = 'deleted'
  const { source, log } = replica(t, name, { leafSeconds: 40, caSeconds: 400 })
  await source.start()
  const before = await authorityIn(name)
  const served = source.current()
  const putBack = () => log.filter(({ step }) => step === 'restore').length
  const other = await makeCa(new Date(), 3600)
  const leaf = await signLeaf(other, { names: ['a'], now: new Date(), seconds: 60 })
  const rows: [what: string, damaged: () => Promise<unknown>][] = [
    ['deleted', () => admin.core.deleteNamespacedSecret({ namespace, name: `${name}-ca` })],
    ['a key that is none', () => damage(name, { 'tls.key': 'nonsense' })],
    ['the key of another CA', () => damage(name, { 'tls.key': other.key })],
    ['an empty certificate', () => damage(name, { 'tls.crt': '' })],
    ['no CA', () => damage(name, { 'tls.crt': leaf.cert, 'tls.key': leaf.key })],
    ['nothing to trust', () => damage(name, { 'ca.crt': undefined })],
    ['half of a next CA', () => damage(name, { 'next.crt': other.cert })],
  ]
  for (const [index, [what, damaged]] of rows.entries()) {
    await damaged()
    await waitFor(() => putBack() > index, within(`the CA after: ${what}`))
    t.strictSame(await authorityIn(name), before, what)
  }
  t.strictSame(source.current(), served, 'and the serving certificate stays')
  t.equal(putBack(), rows.length, 'each is reported once')
  t.notMatch(JSON.stringify(log), /PRIVATE KEY/)
})

t.test('several replicas restore a damaged CA only once', async t => {
  const replicas = Array.from({ length: 4 }, () => replicaCa('together'))
  const [before] = await Promise.all(replicas.map(({ keep }) => keep()))
  await damage('together', { 'tls.key': 'nonsense' })
  const after = await Promise.all(replicas.map(({ keep }) => keep()))
  t.strictSame(after, Array(4).fill(before))
  t.equal(replicas.flatMap(({ log }) => log.filter(({ step }) => step === 'restore')).length, 1)
})

t.test('a damaged CA that no replica knows is replaced after one minute', async t => {
  const name = 'unknown'
  const before = await replicaCa(name).keep()
  let passed = 0
  const clock = clockAt(() => new Date(Date.now() + passed))
  const { keep, log } = replicaCa(name, clock)
  await damage(name, { 'ca.crt': 'nonsense' })
  await t.rejects(keep(), {
    message: /^Secret pullpass\/unknown-ca holds no CA: ca.crt lacks a CA/,
  })
  passed = 61_000
  const repaired = await keep()
  t.strictSame(repaired.signing, before.signing, 'a CA that can still sign is kept')
  t.strictSame(repaired.older, [])

  await damage(name, { 'tls.key': 'nonsense' })
  const fresh = replicaCa(name, clock)
  await t.rejects(fresh.keep(), { name: 'CertificateError', message: /private key cannot be read/ })
  passed += 58_000
  await t.rejects(fresh.keep(), { name: 'CertificateError' })
  await admin.core.deleteNamespacedSecret({ namespace, name: `${name}-ca` })
  await admin.core.createNamespacedSecret({
    namespace,
    body: { metadata: { name: `${name}-ca` }, type: 'Opaque' },
  })
  passed += 3000
  const after = await fresh.keep()
  t.not(after.signing.cert, before.signing.cert, 'else another begins')
  t.strictSame(await authorityIn(name), after)
  t.match(
    [log.at(-1), fresh.log.at(-1)],
    [
      { msg: 'damaged CA replaced', step: 'begin' },
      { msg: 'damaged CA replaced', step: 'begin', problem: /no certificate in the PEM text/ },
    ],
  )
})

const DAY_MS = 86_400_000
const inDays = (days: number) => () => new Date(Date.now() + days * DAY_MS)

t.test('a replica whose clock is 400 days off does not replace the CA', async t => {
  const before = await replicaCa('lasting').keep()
  for (const days of [400, -400]) {
    const lost = { now: inDays(days), local: inDays(days), isMeasured: () => false }
    const known = { ...right, local: inDays(days) }
    await t.rejects(replicaCa('lasting', lost).keep(), {
      message: days > 0 ? /lasting-ca expired at/ : /lasting-ca is not valid before/,
    })
    t.strictSame(await replicaCa('lasting', known).keep(), before)
  }
  t.strictSame(await authorityIn('lasting'), before)
})

t.test('no CA is created before the clock of the API server is known', async t => {
  let measured = false
  const { keep } = replicaCa('early', { ...right, isMeasured: () => measured })
  await t.rejects(keep(), { name: 'CertificateError', message: /before the API server's clock/ })
  await t.rejects(authorityIn('early'), { code: 404 })
  measured = true
  t.ok((await keep()).signing)
})

t.test('a CA of the future is replaced, but not by a replica with that clock', async t => {
  const name = 'future'
  await configure(name)
  const { source } = replica(t, name)
  await source.start()
  await ready(source)
  const odd = replica(t, name, { clock: { ...right, local: inDays(400) } })
  await odd.source.start()
  await ready(odd.source)
  await source.stop()
  const before = odd.source.current()
  const bundles = await bundlesIn(name)

  const wrong = begun(await makeCa(inDays(400)(), 36_000), inDays(400)())
  const { data = {} } = caSecret(wrong, {})
  await damage(
    name,
    Object.fromEntries(
      Object.entries(data).map(([key, text]) => [key, Buffer.from(text, 'base64').toString()]),
    ),
  )
  const isNoted = () =>
    odd.source.warnings().some(note => /future-ca is not valid before/.test(note))
  await waitFor(isNoted, within('the note'))
  t.strictSame(odd.source.current(), before, 'the serving certificate stays')
  t.strictSame(await bundlesIn(name), bundles, 'and so does the caBundle')
  t.strictSame((await authorityIn(name)).signing, wrong.signing)

  const other = replica(t, name)
  await other.source.start()
  await ready(other.source, odd.source)
  t.equal((await authorityIn(name)).signing.cert.includes(wrong.signing.cert), false)
  await waitFor(() => odd.source.warnings().length === 0, within('the end of the note'))
})

/** A client with the rights that are needed, and no other. */
async function serviceAccount(
  t: Test,
  name: string,
  verbs: { secret: string[]; configuration: string[] },
) {
  const rights = [
    ['serviceaccount', name],
    ['role', name, '--resource=secrets', `--resource-name=${name}-ca`, `--verb=${verbs.secret}`],
    ['rolebinding', name, `--role=${name}`, `--serviceaccount=${namespace}:${name}`],
    [
      'clusterrole',
      name,
      '--resource=mutatingwebhookconfigurations',
      `--resource-name=${name}`,
      `--verb=${verbs.configuration}`,
    ],
    ['clusterrolebinding', name, `--clusterrole=${name}`, `--serviceaccount=${namespace}:${name}`],
  ]
  for (const right of rights) {
    const { code, stderr } = await plane.kubectl('-n', namespace, 'create', ...right)
    if (code !== 0) throw new Error(stderr)
  }
  const kubeConfig = new KubeConfig()
  kubeConfig.loadFromFile(await plane.kubeconfigFor(namespace, name))
  return connectAs(t, kubeConfig)
}

t.test('self-managed mode needs rights on one Secret and one configuration', async t => {
  const secret = ['get', 'create', 'patch', 'update']
  const configuration = ['get', 'list', 'watch', 'patch']
  const client = await serviceAccount(t, 'narrow', { secret, configuration })
  await configure('narrow')
  const narrow = replica(t, 'narrow', { client })
  await narrow.source.start()
  await waitFor(async () => (await bundlesIn('narrow'))[0] !== '', within('the caBundle'))
  await ready(narrow.source)
  const aged = createManagedCa(
    {
      client,
      clock: clockAt(() => new Date(Date.now() + 30_000_000)),
      logger: pino({ level: 'silent' }),
    },
    {
      namespace,
      secretName: 'narrow-ca',
      identity: 'aged',
      leafSeconds: 3600,
      caSeconds: 36_000,
    },
  )
  t.ok((await aged.keep(() => false)).next, 'steps are allowed too')

  const weak = await serviceAccount(t, 'weak', { secret: ['get'], configuration: ['get'] })
  const { source } = replica(t, 'weak', { client: weak })
  const started = source.start()
  await waitFor(() => source.warnings().length === 2, within('the warnings'))
  t.match(source.warnings(), [
    /^cannot create Secret pullpass\/weak-ca: HTTP 403 .*cannot patch resource "secrets"/,
    /weak could not be read yet/,
  ])
  t.notOk(source.ready())
  await Promise.all([source.stop(), t.rejects(started, { message: /stopped before/ })])
})

t.test('a mounted certificate is ready when the webhook configuration trusts it', async t => {
  const folder = await makeFolder('mounted')
  t.teardown(() => folder.remove())
  const authority = await makeCa(new Date(), 36_000)
  const names = ['127.0.0.1']
  const leaf = await signLeaf(authority, { names, now: new Date(), seconds: 3600 })
  await writeFile(join(folder.path, 'tls.crt'), leaf.cert)
  await writeFile(join(folder.path, 'tls.key'), leaf.key)
  await configure('mounted', ['https://127.0.0.1:1/'])
  const inject = async (bundle: string) => {
    const value = Buffer.from(bundle).toString('base64')
    await admin.admissionregistration.patchMutatingWebhookConfiguration({
      name: 'mounted',
      body: [{ op: 'add', path: '/webhooks/0/clientConfig/caBundle', value }],
    })
  }
  const { cert: stranger } = await makeCa(new Date(), 36_000)
  await inject(stranger)
  const certificate = {
    mode: 'files' as const,
    directory: folder.path,
    names: [],
    secretName: 'none',
    webhookConfiguration: 'mounted',
    leafSeconds: 3600,
    caSeconds: 36_000,
  }
  const source = createCertificateSource(
    { client: admin, clock: right, logger: pino({ level: 'silent' }), metrics: new Registry() },
    { certificate, namespace, identity: 'mounted' },
  )
  t.teardown(() => source.stop())
  await source.start()
  const isReported = () => source.warnings().some(note => note.includes('does not trust'))
  await waitFor(isReported, within('the note'))
  t.notOk(source.ready())
  await inject(authority.cert)
  await ready(source)
  t.strictSame(source.warnings(), [])
})

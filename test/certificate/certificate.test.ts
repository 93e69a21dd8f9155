import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect, createServer } from 'node:tls'
import pino from 'pino'
import { Registry } from 'prom-client'
import { generate } from 'selfsigned'
import t, { type Test } from 'tap'
import { makeFolder, waitFor } from '../../sandbox/processes.ts'
import {
  begun,
  type CaStep,
  type CertificateAuthority,
  caSecret,
  planCa,
  readCa,
  readSigning,
  signingWithNext,
  splitCertificates,
  trustedCertificates,
  withNext,
  withoutOlder,
} from '../../src/certificate/ca.ts'
import {
  checkPair,
  flawOf,
  issuedAt,
  isTrusted,
  type KeyPair,
  lifeFrom,
  parseCertificate,
  renewAt,
} from '../../src/certificate/certificate.ts'
import { createMountedCertificate } from '../../src/certificate/mounted.ts'
import { createRepeater } from '../../src/certificate/served-pair.ts'
import { makeCa, signLeaf } from '../../src/certificate/sign.ts'
import { createCertificateSource } from '../../src/certificate/source.ts'

const HOUR = 3600
const DAY = 86_400
const START = new Date('2030-01-01T00:00:00Z')
const later = (seconds: number) => new Date(START.getTime() + seconds * 1000)
const silent = pino({ level: 'silent' })
const steady = { now: () => START, local: () => START, isMeasured: () => true }

const first = await makeCa(START, 300 * DAY)
const second = await makeCa(START, 300 * DAY)

t.test('a certificate starts 25 hours early and is renewed at 2/3 of its lifetime', async t => {
  for (const seconds of [5, 60, 7 * DAY, 365 * DAY]) {
    const { notBefore, notAfter } = lifeFrom(START, seconds)
    t.strictSame(
      notBefore,
      later(-25 * HOUR),
      `${seconds} s begin early enough for any clock within a day`,
    )
    t.strictSame(notAfter, later(seconds))
    const made = { validFromDate: notBefore, validToDate: notAfter }
    t.strictSame(issuedAt(made), START)
    const renewal = (renewAt(made).getTime() - START.getTime()) / 1000
    t.ok(Math.abs(renewal - (2 * seconds) / 3) < 0.01, `${seconds} s renewed at ${renewal}`)
  }
  const dated = { validFromDate: later(-600), validToDate: later(DAY) }
  t.strictSame(issuedAt(dated), dated.validFromDate, 'one that was not dated back so far')
})

const future = await makeCa(later(400 * DAY), 300 * DAY)

t.test('a CA is distributed before it signs, and removed after its last certificate', async t => {
  const one = begun(first, START)
  const two = withNext(one, second, START)
  const after = signingWithNext(two, START)
  const rows: [CertificateAuthority, seconds: number, trusts: boolean, CaStep, string][] = [
    [one, 0, false, 'keep', 'a young CA signs on, trusted yet or not'],
    [one, 199 * DAY, true, 'keep', 'before 2/3 of its life'],
    [one, 200 * DAY, false, 'add-next', 'at 2/3 of its life'],
    [one, 300 * DAY, true, 'begin', 'ended without a next one'],
    [one, -26 * HOUR, true, 'begin', 'not valid yet, without a next one'],
    [one, -24 * HOUR, true, 'correct-since', 'made by a clock that is a day ahead, and valid'],
    [two, 3599, true, 'keep', 'the next CA is not settled'],
    [two, 3600, true, 'sign-with-next', 'the next CA is settled and trusted'],
    [two, 40 * DAY, false, 'keep', 'the next CA is not trusted'],
    [withNext(one, second, START), 300 * DAY, false, 'begin', 'both ended'],
    [{ ...two, signing: future }, 0, false, 'sign-with-next', 'not valid yet, and the next one is'],
    [{ ...one, signing: future }, 0, true, 'begin', 'begins in 400 days'],
    [{ ...two, next: future }, 0, true, 'add-next', 'the next CA begins in 400 days'],
    [{ ...two, since: later(400 * DAY) }, 0, true, 'correct-since', 'changed in 400 days'],
    [after, 7 * DAY + 3599, true, 'keep', 'a leaf of the older CA may be in use'],
    [after, 7 * DAY + 3600, true, 'drop-older', 'no leaf of the older CA can be in use'],
    [after, 250 * DAY, true, 'drop-older', 'one change at a time'],
  ]
  for (const [authority, seconds, trusts, step, what] of rows) {
    const now = later(seconds)
    const moment = { now, local: now, isMeasured: true, leafSeconds: 7 * DAY, trusts: () => trusts }
    t.equal(planCa(authority, moment), step, what)
    t.equal(planCa(authority, { ...moment, isMeasured: false }), 'keep', `${what}: unmeasured`)
  }
  const longer = await makeCa(START, 400 * DAY)
  t.equal(
    planCa(withNext(one, longer, START), {
      ...{ now: later(300 * DAY), local: later(300 * DAY), isMeasured: true },
      ...{ leafSeconds: 7 * DAY, trusts: () => false },
    }),
    'sign-with-next',
    'ended, and any next one is better',
  )
  t.equal(
    planCa(two, {
      ...{ now: later(2), local: later(2), isMeasured: true },
      ...{ leafSeconds: 20, trusts: cert => cert === second.cert },
    }),
    'sign-with-next',
    'a tenth of the life of a short leaf settles, and the next CA is asked for',
  )
})

t.test('one clock alone cannot replace a CA or remove trust', async t => {
  const one = begun(first, START)
  const two = withNext(one, second, START)
  const after = signingWithNext(two, START)
  const rows: [CertificateAuthority, server: number, local: number, CaStep, string][] = [
    [one, 0, 400 * DAY, 'keep', 'ended by ours'],
    [one, 0, -400 * DAY, 'keep', 'not valid yet by ours'],
    [one, 400 * DAY, 0, 'keep', "ended by the API server's"],
    [one, -400 * DAY, 0, 'keep', "not valid yet by the API server's"],
    [one, 400 * DAY, 401 * DAY, 'begin', 'ended by both, a day apart'],
    [one, 200 * DAY, 0, 'add-next', "to be renewed by the API server's"],
    [two, HOUR, -HOUR, 'sign-with-next', "settled by the API server's"],
    [two, 0, HOUR, 'keep', 'settled by ours'],
    [after, 7 * DAY + HOUR, 0, 'keep', "unused by the API server's"],
    [after, 0, 8 * DAY, 'keep', 'unused by ours'],
    [after, 8 * DAY, 9 * DAY, 'drop-older', 'unused by both, a day apart'],
  ]
  for (const [authority, server, local, step, what] of rows) {
    const times = { now: later(server), local: later(local), isMeasured: true }
    const moment = { ...times, leafSeconds: 7 * DAY, trusts: () => true }
    t.equal(planCa(authority, moment), step, what)
  }
})

t.test('a CA is read from its Secret exactly as it was written', async t => {
  const one = begun(first, START)
  const two = withNext(one, second, later(1))
  const after = signingWithNext(two, later(2))
  for (const authority of [one, two, after, withoutOlder(after, later(3))]) {
    const secret = caSecret(authority, { namespace: 'pullpass', name: 'pullpass-ca' })
    t.strictSame(readCa(secret), authority)
    t.equal(secret.type, 'kubernetes.io/tls')
  }
  t.equal(trustedCertificates(two), first.cert + second.cert)
  t.equal(trustedCertificates(after), second.cert + first.cert)
  t.strictSame(splitCertificates(trustedCertificates(two)), [first.cert, second.cert])

  const secret = caSecret(one, {})
  const wrong = (key: string, text: string) => ({
    ...secret,
    data: { ...secret.data, [key]: Buffer.from(text).toString('base64') },
  })
  const leaf = await signLeaf(first, { names: ['a'], now: START, seconds: DAY })
  t.throws(() => readCa({}), { name: 'CertificateError' })
  t.throws(() => readCa(wrong('tls.key', second.key)), { message: /another certificate/ })
  t.throws(() => readCa(wrong('tls.key', 'nonsense')), { message: /key cannot be read/ })
  t.throws(() => readCa(wrong('tls.crt', 'nonsense')), { message: /no certificate/ })
  t.throws(() => readCa(caSecret(begun(leaf, START), {})), { message: /not of a CA/ })
  t.throws(() => readCa(wrong('ca.crt', second.cert)), { message: /ca.crt lacks a CA/ })
  t.throws(() => readCa(wrong('next.crt', second.cert)), { message: /key cannot be read/ })
  t.strictSame(readSigning(wrong('ca.crt', '')), first, 'what signs can be read on its own')
  t.equal(readSigning(wrong('tls.key', '')), undefined)
})

t.test('a certificate is trusted according to its issuer and its dates', async t => {
  const leaf = await signLeaf(first, { names: ['a'], now: START, seconds: DAY })
  const garbage = first.cert.replace(/^M.*$/m, 'AAAA')
  const rows: [cert: string, bundle: string, seconds: number, boolean, string][] = [
    [leaf.cert, first.cert, 0, true, 'signed by the one CA'],
    [leaf.cert, second.cert + first.cert, 0, true, 'signed by one of them'],
    [leaf.cert, second.cert, 0, false, 'signed by another CA'],
    [leaf.cert, '', 0, false, 'no CA'],
    [leaf.cert, garbage, 0, false, 'a CA that cannot be read'],
    [leaf.cert, first.cert, DAY, false, 'ended'],
    [leaf.cert, first.cert, -25 * HOUR - 1, false, 'not begun'],
    [leaf.cert, first.cert, -25 * HOUR, true, 'by a clock that is a day behind'],
    [first.cert, first.cert, 0, true, 'the CA itself'],
    [first.cert, second.cert, 0, false, 'another CA'],
    [leaf.cert + first.cert, first.cert, 0, true, 'with its CA sent along'],
    [leaf.cert + second.cert, second.cert, 0, false, 'with a stranger sent along'],
    ['', first.cert, 0, false, 'nothing'],
  ]
  for (const [cert, bundle, seconds, trusted, what] of rows) {
    t.equal(isTrusted(cert, bundle, later(seconds)), trusted, what)
  }
  t.throws(() => checkPair({ key: first.key, cert: leaf.cert }), { name: 'CertificateError' })
  t.throws(() => checkPair({ key: leaf.key, cert: garbage }), { name: 'CertificateError' })
})

t.test('certificates have the fields that the API server requires', async t => {
  const names = ['pullpass.pullpass.svc', '127.0.0.1', '::1']
  const leaf = parseCertificate((await signLeaf(first, { names, now: START, seconds: DAY })).cert)
  t.equal(
    leaf.subjectAltName,
    'DNS:pullpass.pullpass.svc, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1',
  )
  t.match(leaf.toLegacyObject(), { asn1Curve: 'prime256v1' })
  t.match(leaf.signatureAlgorithm, /sha256/i)
  t.notOk(leaf.ca)
  const ca = parseCertificate(first.cert)
  t.ok(ca.ca)
  t.not(ca.subject, parseCertificate(second.cert).subject, 'each CA has a name of its own')
  const capped = await signLeaf(first, { names, now: later(299 * DAY), seconds: 7 * DAY })
  t.strictSame(parseCertificate(capped.cert).validToDate, ca.validToDate, 'ends with its CA')
})

/** The names for which a TLS client that trusts `ca` accepts a server with this pair. */
async function accepted(t: Test, pair: KeyPair, ca: string, names: string[]): Promise<string[]> {
  const server = createServer(pair, socket => socket.end()).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  server.on('tlsClientError', () => {})
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const tried = names.map(async name => {
    const socket = connect({
      host: '127.0.0.1',
      port,
      ca,
      ...(/^[a-z]/.test(name) && { servername: name }),
    })
    try {
      await once(socket, 'secureConnect')
      return name
    } catch {
      return ''
    } finally {
      socket.destroy()
    }
  })
  return (await Promise.all(tried)).filter(Boolean)
}

t.test('a TLS client accepts a certificate by each name, with old and new CA', async t => {
  const now = new Date()
  const [old, next] = [await makeCa(now, 60), await makeCa(now, 60)]
  const names = ['pullpass.pullpass.svc', '127.0.0.1']
  const asked = [...names, 'other.pullpass.svc']
  for (const ca of [old, next]) {
    const leaf = await signLeaf(ca, { names, now, seconds: 60 })
    for (const bundle of [old.cert + next.cert, next.cert + old.cert, ca.cert]) {
      t.strictSame(await accepted(t, leaf, bundle, asked), names)
    }
  }
  const leaf = await signLeaf(old, { names, now, seconds: 60 })
  t.strictSame(await accepted(t, leaf, next.cert, names), [], 'and not by another CA')
})

/** Writes files into a folder as the kubelet does: a new folder and one replaced link. */
async function mount(folder: string, files: Record<string, string>): Promise<void> {
  const present = await readdir(folder)
  const version = `..${Date.now()}.${Math.random()}`
  await mkdir(join(folder, version))
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(folder, version, name), text)
    if (!present.includes(name)) await symlink(join('..data', name), join(folder, name))
  }
  await symlink(version, join(folder, '..data_tmp'))
  await rename(join(folder, '..data_tmp'), join(folder, '..data'))
}

async function mounted(t: Test, files: Record<string, string>, names: string[] = []) {
  const folder = await makeFolder('certificate')
  t.teardown(() => folder.remove())
  await mount(folder.path, files)
  const log: { level: number; msg: string; problem?: string }[] = []
  const logger = pino({}, { write: line => void log.push(JSON.parse(line)) })
  const metrics = new Registry()
  let clock = START
  const source = createMountedCertificate(
    { clock: { now: () => clock }, logger, metrics },
    { directory: folder.path, names, checkMs: 20 },
  )
  t.teardown(() => source.stop())
  const changes: string[] = []
  source.onChange(() => changes.push(source.current().cert))
  const at = (seconds: number) => {
    clock = later(seconds)
  }
  return { source, path: folder.path, log, metrics, changes, at }
}

const within = { withinMs: 5000, what: 'the change' }
const leafOf = (ca: KeyPair) => signLeaf(ca, { names: ['a.b'], now: START, seconds: DAY })
const files = ({ key, cert }: KeyPair, ca?: string) => ({
  'tls.crt': cert,
  'tls.key': key,
  ...(ca && { 'ca.crt': ca }),
})

t.test('a changed mounted certificate is used, and an invalid one is not', async t => {
  const [one, two] = [await leafOf(first), await leafOf(second)]
  const { source, path, log, metrics, changes, at } = await mounted(t, files(one, first.cert))
  t.throws(() => source.current())
  t.notOk(source.ready())
  await source.start()
  t.strictSame(source.current(), one)
  t.ok(source.ready())
  t.strictSame(source.warnings(), [])

  await mount(path, files({ key: one.key, cert: two.cert }))
  await waitFor(() => source.warnings().length > 0, within)
  t.strictSame(source.current(), one, 'the one before is kept')
  t.ok(source.ready())
  t.strictSame(source.warnings(), [
    `tls.crt and tls.key in ${path}: the private key belongs to another certificate`,
  ])

  await mount(path, files(two, second.cert))
  await waitFor(() => source.current().cert === two.cert, within)
  t.strictSame(changes, [one.cert, two.cert], 'each change is reported once')
  t.strictSame(source.warnings(), [])
  t.match(await metrics.metrics(), /pullpass_certificate_changes_total 2/)
  t.match(await metrics.metrics(), `end_timestamp_seconds ${later(DAY).getTime() / 1000}`)

  await rm(join(path, 'tls.key'))
  await waitFor(() => source.warnings().length > 0, within)
  t.match(source.warnings(), [/^there is no tls.key in /])
  t.equal(log.filter(({ level }) => level === 40).length, 2, 'each problem is logged once')

  at(DAY)
  t.notOk(source.ready(), 'ended')
  t.match(source.warnings(), [
    `the serving certificate (tls.crt in ${path}) is not valid now: it ended at 2030-01-02T00:00:00.000Z`,
  ])
  await source.stop()
  t.notMatch(JSON.stringify(log), /PRIVATE KEY/)
})

t.test('a mounted certificate that its ca.crt did not sign is served, not ready', async t => {
  const { source } = await mounted(t, files(await leafOf(first), second.cert))
  await source.start()
  t.notOk(source.ready())
  t.match(source.warnings(), [
    /^the serving certificate \(tls.crt in .*\) is not signed by ca.crt$/,
  ])
})

t.test('pullpass does not start without a usable mounted certificate', async t => {
  const rows: [Record<string, string>, RegExp][] = [
    [{ 'tls.crt': first.cert }, /no tls.key/],
    [{ 'tls.key': first.key }, /no tls.crt/],
    [files({ key: first.key, cert: second.cert }), /another certificate/],
    [
      files(first, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'),
      /cannot be read/,
    ],
  ]
  for (const [files, message] of rows) {
    const { source } = await mounted(t, files)
    await t.rejects(source.start(), { name: 'CertificateError', message })
  }
  const settings = {
    mode: 'files' as const,
    names: [],
    secretName: 'pullpass-ca',
    webhookConfiguration: 'pullpass',
    leafSeconds: 60,
    caSeconds: 240,
  }
  const client = undefined as never
  const create = (certificate: typeof settings & { directory?: string }) =>
    createCertificateSource(
      { client, clock: steady, logger: silent, metrics: new Registry() },
      { certificate, namespace: 'a', identity: 'a' },
    )
  t.throws(() => create(settings), { name: 'CertificateError' })
  const { path } = await mounted(t, files(first))
  const source = create({ ...settings, directory: path })
  await source.start()
  t.teardown(() => source.stop())
  t.ok(new X509Certificate(source.current().cert).ca)
})

/** A certificate that was made elsewhere. */
async function madeElsewhere(options: Parameters<typeof generate>[1]): Promise<KeyPair> {
  const made = await generate([{ name: 'commonName', value: 'a.b' }], {
    ...{ algorithm: 'sha256', keySize: 2048, notBeforeDate: START, notAfterDate: later(DAY) },
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: 'a.b' }] }],
    ...options,
  })
  return { key: made.private, cert: made.cert }
}

t.test('every problem for which the API server would refuse a certificate is found', async t => {
  const names = ['a.b', '*.wild.svc', '10.0.0.1']
  const { cert } = await signLeaf(first, { names, now: START, seconds: DAY })
  const extensions = [
    { name: 'subjectAltName' as const, altNames: [{ type: 2 as const, value: 'a.b' }] },
    { name: 'extKeyUsage' as const, clientAuth: true },
  ]
  const forClients = await madeElsewhere({ extensions })
  const nameless = await madeElsewhere({ extensions: [{ name: 'basicConstraints', cA: false }] })
  const weak = await madeElsewhere({ algorithm: 'sha1' })
  const plain = await madeElsewhere({})
  const rows: [cert: string, names: string[], seconds: number, RegExp | undefined, string][] = [
    [cert, ['a.b'], 0, undefined, 'its name'],
    [cert, ['a.b', '10.0.0.1', 'c.wild.svc'], 0, undefined, 'its names and an address'],
    [cert, [], 0, undefined, 'no name is asked for'],
    [cert, ['a.c'], 0, /is not for the name a\.c$/, 'another name'],
    [cert, ['10.0.0.2'], 0, /not for the name 10\.0\.0\.2/, 'another address'],
    [cert, ['c.d.wild.svc'], 0, /not for the name/, 'a name below a name'],
    [nameless.cert, ['a.b'], 0, /not for the name a\.b/, 'a name in the subject only'],
    [cert, ['a.b'], DAY, /it ended at 2030-01-02T00:00:00.000Z/, 'ended'],
    [cert, ['a.b'], -26 * HOUR, /it begins at 2029-12-30T23:00:00.000Z/, 'not begun'],
    [weak.cert, ['a.b'], 0, /SHA-1/, 'SHA-1'],
    [forClients.cert, ['a.b'], 0, /not for a TLS server/, 'made for a client'],
    [plain.cert, ['a.b'], 0, undefined, 'made for any use'],
  ]
  for (const [cert, names, seconds, flaw, what] of rows) {
    const found = flawOf(cert, { names, now: later(seconds) })
    if (flaw) t.match(found, flaw, what)
    else t.equal(found, undefined, what)
  }
  t.equal(isTrusted(weak.cert, weak.cert, START), false, 'a SHA-1 signature convinces nobody')
})

t.test('a certificate with intermediate certificates is trusted in any order', async t => {
  const between = (ca: KeyPair, name: string, cA: boolean) =>
    generate([{ name: 'commonName', value: name }], {
      ...{ keyType: 'ec', curve: 'P-256', algorithm: 'sha256', ca },
      ...{ notBeforeDate: START, notAfterDate: later(DAY) },
      extensions: [{ name: 'basicConstraints', cA, critical: true }],
    }).then(made => ({ key: made.private, cert: `${made.cert.trim()}\n` }))
  const upper = await between(first, 'upper', true)
  const lower = await between(upper, 'lower', true)
  const leaf = await signLeaf(lower, { names: ['a'], now: START, seconds: DAY })
  t.ok(isTrusted(leaf.cert + lower.cert + upper.cert, first.cert, START))
  t.ok(isTrusted(leaf.cert + upper.cert + lower.cert, first.cert, START))
  t.notOk(isTrusted(leaf.cert + upper.cert, first.cert, START), 'one of them is missing')
  const noCa = await between(first, 'no CA', false)
  const signed = await signLeaf(noCa, { names: ['a'], now: START, seconds: DAY })
  t.notOk(isTrusted(signed.cert + noCa.cert, first.cert, START), 'one of them is no CA')
})

t.test(
  'a new mounted certificate that the API server would refuse does not replace a good one',
  async t => {
    const good = await leafOf(first)
    const other = await signLeaf(first, { names: ['c.d'], now: START, seconds: DAY })
    const early = await signLeaf(first, { names: ['a.b'], now: later(2 * DAY), seconds: DAY })
    const short = await madeElsewhere({ keySize: 1024 })
    const weak = await madeElsewhere({ algorithm: 'sha1' })
    const { source, path, log, changes, at } = await mounted(t, files(good), ['a.b'])
    await source.start()
    const rows: [KeyPair, RegExp][] = [
      [other, /tls\.crt in .*certificate.*\) is not for the name a\.b$/],
      [early, /it begins at 2030-01-01T23:00:00\.000Z/],
      [short, /^OpenSSL refuses tls\.crt and tls\.key in .*: ee key too small$/],
      [weak, /SHA-1|md too weak/],
    ]
    for (const [pair, problem] of rows) {
      await mount(path, files(pair))
      await waitFor(() => source.warnings().some(note => problem.test(note)), within)
      t.strictSame(source.current(), good)
      t.ok(source.ready(), 'the one before still serves')
    }
    t.equal(log.filter(({ level }) => level === 40).length, rows.length, 'each is reported once')
    t.strictSame(changes, [good.cert])
    t.notMatch(JSON.stringify(log), /PRIVATE KEY/)

    await mount(path, files(early))
    await waitFor(() => source.warnings().join().includes('it begins at'), within)
    at(DAY - 1)
    await waitFor(() => source.current().cert === early.cert, within)
    t.ok(source.ready(), 'one that begins later is taken into use when it does')
  },
)

t.test('a first mounted certificate is ready only if it has the expected name', async t => {
  const { source, path } = await mounted(t, files(await leafOf(first)), ['pullpass.pullpass.svc'])
  await source.start()
  t.notOk(source.ready())
  t.match(source.warnings(), [/\(tls.crt in .*\) is not for the name pullpass\.pullpass\.svc$/])
  const right = { names: ['pullpass.pullpass.svc'], now: START, seconds: DAY }
  await mount(path, files(await signLeaf(first, right)))
  await waitFor(() => source.ready(), within)
})

t.test('a server that refuses a new certificate keeps the previous one', async t => {
  const [one, two, three] = [await leafOf(first), await leafOf(first), await leafOf(first)]
  const { source, path } = await mounted(t, files(one))
  source.onChange(() => {
    if (source.current().cert === two.cert) throw new Error('hunter2')
  })
  await source.start()
  await mount(path, files(two))
  await waitFor(() => source.warnings().length > 0, within)
  t.strictSame(source.warnings(), ['the server refuses the certificate: Error'])
  t.strictSame(source.current(), one)
  await mount(path, files(three))
  await waitFor(() => source.current().cert === three.cert, within)
  t.strictSame(source.warnings(), [])
})

t.test('endless triggers make no hot loop, and none is missed', async t => {
  let runs = 0
  const task = async () => {
    runs++
    repeater.trigger()
  }
  const repeater = createRepeater(
    { task, logger: silent },
    { everyMs: 3_600_000, leastMs: 50, failed: 'failed' },
  )
  const begin = performance.now()
  repeater.start()
  await waitFor(() => runs >= 4, within)
  t.ok(performance.now() - begin >= 145)
  await repeater.stop()
  const ended = runs
  repeater.trigger()
  t.equal(runs, ended)
})

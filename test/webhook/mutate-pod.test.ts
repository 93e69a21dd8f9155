import pino from 'pino'
import { Registry } from 'prom-client'
import t from 'tap'
import { createMutatePod } from '../../src/webhook/mutate-pod.ts'
import { type Review, readReview } from '../../src/webhook/review.ts'

const rules = {
  registryHost: 'registry.d.example.com',
  secretName: 'pullpass-registry',
  releaseNamespace: 'pullpass',
}
const operations = [
  { op: 'add', path: '/spec/imagePullSecrets', value: [{ name: 'pullpass-registry' }] },
]

function reviewOf(namespace = 'shop', image = 'registry.d.example.com/acme/web:1'): Review {
  const review = readReview({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'uid-1',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      namespace,
      operation: 'CREATE',
      object: { metadata: { name: 'web-1' }, spec: { containers: [{ image }] } },
    },
  })
  if ('problem' in review) throw new Error(review.problem)
  return review
}

type Dependencies = Parameters<typeof createMutatePod>[0]

function setup(options: Partial<Dependencies> = {}) {
  const log: Record<string, unknown>[] = []
  const metrics = options.metrics ?? new Registry()
  const defaults: Dependencies = {
    index: { serviceAccounts: tableOf(() => undefined) },
    isOptedIn: async () => true,
    secretMissing: async () => undefined,
    logger: pino({}, { write: line => void log.push(JSON.parse(line)) }),
    metrics,
  }
  const mutatePod = createMutatePod({ ...defaults, ...options }, rules)
  const patchOf = async (budgetMs = 100) => {
    const { answer, outcome } = await mutatePod(reviewOf(), budgetMs)
    const { patch = 'bnVsbA==', warnings = [] } = answer.response
    return { patch: JSON.parse(Buffer.from(patch, 'base64').toString()), warnings, outcome }
  }
  const errors = async () => {
    const lines = await metrics.getSingleMetricAsString('pullpass_admission_internal_errors_total')
    const counts = [...lines.matchAll(/stage="(\w+)"} (\d+)/g)]
    return Object.fromEntries(counts.map(([, stage, count]) => [stage, Number(count)]))
  }
  return { mutatePod, patchOf, errors, log }
}

function tableOf(get: (key: string) => unknown): Dependencies['index']['serviceAccounts'] {
  const unused = () => {
    throw new Error('not used here')
  }
  const table = { get, keys: unused, upsert: unused, remove: unused, replace: unused }
  return table as Dependencies['index']['serviceAccounts']
}

/** Ways for a function to fail. */
const faults: Record<string, () => unknown> = {
  throws: () => {
    throw new Error('s3cret')
  },
  'throws no Error': () => {
    throw 's3cret'
  },
  rejects: () => Promise.reject(new Error('s3cret')),
  hangs: () => new Promise(() => {}),
  'returns null': () => null,
  'returns an object': () => ({ s3cret: true }),
  'returns a number': () => Number.NaN,
}
const never = () => new Promise<never>(() => {})
const warning = 'pull secret pullpass-registry: internal error in pullpass'

t.test('a pod gets its patch even if the namespace look-up fails', async t => {
  for (const [name, fault] of Object.entries(faults)) {
    const { patchOf, errors, log } = setup({ isOptedIn: fault as never })
    const { patch, warnings, outcome } = await patchOf()
    t.strictSame([patch, outcome], [operations, 'injected'], name)
    t.match(warnings, [`${warning} (the namespace), see its log`])
    t.strictSame((await errors()).namespace, 1)
    t.notMatch(JSON.stringify([log, warnings]), /s3cret/)
  }
})

t.test('a pod gets its patch even if the ServiceAccount look-up fails', async t => {
  for (const [name, fault] of Object.entries(faults)) {
    const lookUp = () => {
      const found = fault()
      Promise.resolve(found).catch(() => {})
      return found
    }
    const { patchOf, errors } = setup({ index: { serviceAccounts: tableOf(lookUp) } })
    const { patch, warnings } = await patchOf()
    t.strictSame(patch, operations, name)
    t.match(warnings, [`${warning} (the ServiceAccount), see its log`])
    t.strictSame((await errors()).service_account, 1)
  }
})

t.test('a pod gets its patch even if the wait for the Secret fails', async t => {
  for (const [name, fault] of Object.entries(faults)) {
    const { patchOf, errors, log } = setup({ secretMissing: fault as never })
    const { patch, warnings, outcome } = await patchOf()
    t.strictSame([patch, outcome], [operations, 'injected_without_secret'], name)
    t.match(warnings, [`${warning} (the Secret), see its log`])
    t.strictSame((await errors()).secret, 1)
    t.notMatch(JSON.stringify([log, warnings]), /s3cret/)
  }
})

t.test('a pod gets its patch even if logger and counters fail', async t => {
  const fail = () => {
    throw new Error('s3cret')
  }
  const logger = { info: fail, debug: fail, warn: fail, error: fail } as never
  const { patchOf, errors } = setup({ logger })
  const { patch, warnings } = await patchOf()
  t.strictSame(patch, operations)
  t.match(warnings, [`${warning} (the log), see its log`])
  t.strictSame((await errors()).log, 1)

  const all = setup({
    logger,
    isOptedIn: fail,
    secretMissing: fail,
    index: { serviceAccounts: tableOf(fail) },
  })
  const answer = await all.patchOf()
  t.strictSame([answer.patch, answer.warnings.length], [operations, 4])
  t.strictSame(await all.errors(), { namespace: 1, service_account: 1, secret: 1, log: 1 })
})

t.test('the counters of failed steps start at 0', async t => {
  const { errors } = setup()
  t.strictSame(await errors(), { namespace: 0, service_account: 0, secret: 0, log: 0 })
})

t.test('a pod gets its patch with any time budget', async t => {
  const budgets = [0, 0.001, -1, Number.MIN_VALUE, 0.9999, ...range(1, 50), ...range(1, 50, 0.37)]
  const answers = budgets.map(async budgetMs => {
    const given: number[] = []
    const { patchOf } = setup({
      isOptedIn: (_namespace, ms) => {
        given.push(ms)
        return never()
      },
      secretMissing: (_of, ms) => {
        AbortSignal.timeout(ms)
        return never()
      },
    })
    const { patch } = await patchOf(budgetMs)
    t.strictSame(patch, operations, `${budgetMs} ms`)
    t.ok(given.every(Number.isInteger))
  })
  await Promise.all(answers)
})

t.test('a system namespace costs no look-up', async t => {
  const fail = () => {
    throw new Error('looked up')
  }
  const { mutatePod, errors } = setup({
    isOptedIn: fail,
    secretMissing: fail,
    index: { serviceAccounts: tableOf(fail) },
  })
  for (const namespace of ['kube-system', 'kube-node-lease', 'pullpass']) {
    const { answer, outcome } = await mutatePod(reviewOf(namespace), 100)
    t.strictSame([answer.response.patch, outcome], [undefined, 'namespace_never_served'])
  }
  t.strictSame(await errors(), { namespace: 0, service_account: 0, secret: 0, log: 0 })
})

t.test('an injected pod is logged at level info, an unchanged pod at level debug', async t => {
  const { mutatePod, log } = setup()
  await mutatePod(reviewOf(), 100)
  await mutatePod(reviewOf('shop', 'nginx'), 100)
  await mutatePod({ ...reviewOf(), uid: 'u'.repeat(256) }, 100)
  t.match(log, [
    { msg: 'review', outcome: 'injected', pod: 'web-1' },
    { msg: 'review', uid: 'u'.repeat(64) },
  ])
  t.equal(log.length, 2)
  t.notMatch(JSON.stringify(log), /u{65}/)
})

function range(from: number, to: number, add = 0): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index + add)
}

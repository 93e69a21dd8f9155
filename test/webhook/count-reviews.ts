import { setTimeout as sleep } from 'node:timers/promises'
import type { V1Namespace, V1Secret } from '@kubernetes/client-node'
import pino from 'pino'
import { Registry } from 'prom-client'
import { createFailureStore } from '../../src/failure.ts'
import { createPullSecretIndex } from '../../src/pull-secret/cache.ts'
import { pullSecretManifest } from '../../src/pull-secret/pull-secret.ts'
import { createIsOptedIn, createSecretMissing } from '../../src/webhook/await-secret.ts'
import { createMutatePod } from '../../src/webhook/mutate-pod.ts'
import { readReview } from '../../src/webhook/review.ts'
import { image, pod, reviewOf } from '../e2e/pods.ts'

/**
 * Answers reviews in this process, from the body to the answer, and prints as JSON what they cost.
 * The heap must have room for all of them, so that nothing is collected meanwhile.
 */

const collectGarbage = globalThis.gc as () => void
const rules = {
  registryHost: 'registry.dedicated.example.com',
  secretName: 'pullpass-registry',
  releaseNamespace: 'pullpass',
}
const index = createPullSecretIndex(rules)
let apiReads = 0
let wanted = 0
const isOptedIn = createIsOptedIn({
  index,
  store: {
    readNamespace: async () => {
      apiReads += 1
      return undefined
    },
  },
})
const secretMissing = createSecretMissing(
  {
    index,
    controller: {
      want: () => {
        wanted += 1
      },
      failure: () => undefined,
    },
    failures: createFailureStore(),
  },
  { waitMs: 200 },
)
const logger = pino({}, { write: () => {} })
const metrics = new Registry()
const mutatePod = createMutatePod({ index, isOptedIn, secretMissing, logger, metrics }, rules)

label('ready')
label('waiting')
index.secrets.upsert(secretOf('ready'))

function label(name: string): void {
  const metadata = {
    name,
    uid: name,
    resourceVersion: '1',
    labels: { 'pullpass.io/inject': 'enabled' },
  }
  index.namespaces.upsert({ metadata } as V1Namespace)
}

function secretOf(namespace: string): V1Secret {
  const token = { text: 'e30.e30.c2ln', id: 'token-1', expiresAt: undefined }
  const made = pullSecretManifest(
    {
      namespace,
      token,
      organization: 'acme',
      mintedAt: undefined,
      previousTokenId: undefined,
      revokeAt: undefined,
    },
    rules,
  )
  return { ...made, metadata: { ...made.metadata, uid: namespace, resourceVersion: '1' } }
}

/** About 4.8 KB, as a pod of a Deployment is. */
function bodyOf(namespace: string): Buffer {
  const env = Array.from({ length: 60 }, (_, at) => ({
    name: `SETTING_${at}`,
    value: 'x'.repeat(40),
  }))
  return Buffer.from(
    JSON.stringify(reviewOf(namespace, pod('web', { containers: [{ name: 'web', image, env }] }))),
  )
}

async function answer(body: Buffer): Promise<number> {
  const review = readReview(JSON.parse(body.toString()))
  if ('problem' in review) throw new Error(review.problem)
  const { answer } = await mutatePod(review, 10_000)
  return JSON.stringify(answer).length
}

const timers = () => process.getActiveResourcesInfo().filter(name => name === 'Timeout').length

async function measure(count: number, namespace: string) {
  const body = bodyOf(namespace)
  for (let times = 0; times < 2000; times++) await answer(body)
  collectGarbage()
  const before = { heap: process.memoryUsage().heapUsed, timers: timers(), apiReads, wanted }
  for (let times = 0; times < count; times++) await answer(body)
  const allocated = process.memoryUsage().heapUsed - before.heap
  const left = timers() - before.timers
  collectGarbage()
  return {
    bodyBytes: body.length,
    allocated: allocated / count,
    kept: (process.memoryUsage().heapUsed - before.heap) / count,
    timersLeft: left,
    apiReads: apiReads - before.apiReads,
    wanted: wanted - before.wanted,
  }
}

/** Many reviews that wait for the same Secret, until it comes. */
async function measureWaiting(count: number) {
  const body = bodyOf('waiting')
  const before = timers()
  const answers = Array.from({ length: count }, () => answer(body))
  await sleep(0)
  const whileWaiting = timers() - before
  index.secrets.upsert(secretOf('waiting'))
  await Promise.all(answers)
  return { timersWhileWaiting: whileWaiting / count, timersLeft: timers() - before }
}

console.log(
  JSON.stringify({ ready: await measure(10_000, 'ready'), waiting: await measureWaiting(100) }),
)

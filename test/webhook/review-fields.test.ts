import t from 'tap'
import { StringCutter } from '../../src/webhook/cut-strings.ts'
import { imagesOf } from '../../src/webhook/pod.ts'
import { addPullSecret } from '../../src/webhook/response.ts'
import { readReview } from '../../src/webhook/review.ts'
import { parseFields, pickFields, TooManyValues } from '../../src/webhook/review-fields.ts'

/** Parses a text that arrives in pieces of this size. */
function parse(text: string, piece = 1 << 20): unknown {
  const bytes = Buffer.from(text)
  const chunks: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += piece) chunks.push(bytes.subarray(at, at + piece))
  const parsing = parseFields(chunks)
  for (;;) {
    const { done, value } = parsing.next()
    if (done) return value
  }
}

/** The same numbers in every run (mulberry32). */
function createRandom(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

const keys =
  `apiVersion kind request uid group version namespace operation dryRun subResource name object
  metadata generateName labels annotations spec containers initContainers ephemeralContainers volumes image
  reference imagePullSecrets serviceAccountName serviceAccount pullpass.io/inject kubernetes.io/config.mirror
  __proto__ constructor toString other env`.split(/\s+/)
const scalars = [
  'null',
  'true',
  'false',
  '0',
  '-1.5e3',
  '""',
  '"x"',
  '"\\u00e4\\n\\ud83d\\ude00"',
  '"ü€😀"',
  '"{[,:"',
  '"disabled"',
]

/** JSON text of any shape; keys may occur twice. */
function generate(random: (below: number) => number, depth: number): string {
  const space = [' ', '', '', '\n\t'][random(4)]
  const many = Array.from({ length: random(5) })
  if (depth === 0 || random(5) === 0) return `${space}${scalars[random(scalars.length)]}`
  if (random(3) === 0) return `[${many.map(() => generate(random, depth - 1)).join(`${space},`)}]`
  const fields = many.map(
    () => `${space}"${keys[random(keys.length)]}"${space}:${generate(random, depth - 1)}`,
  )
  return `{${fields.join(',')}${space}}`
}

/** A review with generated parts in the fields that are read. */
function generateReview(random: (below: number) => number): string {
  const part = (depth: number) => generate(random, depth)
  const containers = `[${[1, 2, 3].map(() => `{"image":${part(1)},"image":${part(1)},"env":${part(3)}}`)}]`
  const spec = `{"containers":${random(2) ? containers : part(3)},"volumes":[{"image":{"reference":${part(1)}}},${part(2)}],
    "imagePullSecrets":${part(2)},"serviceAccountName":${part(1)}}`
  const pod = `{"metadata":{"labels":{"pullpass.io/inject":${part(1)}},"annotations":${part(2)}},"spec":${spec},"__proto__":${part(2)}}`
  return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"","version":"v1","kind":"Pod"},
    "namespace":"shop","operation":"CREATE","oldObject":${part(3)},"object":${random(9) ? pod : part(4)}}}`
}

/** The result for a body: the review, the images and the patch, or the reason why it is invalid. */
function resultOf(body: unknown): string {
  const review = readReview(body)
  if ('problem' in review) return review.problem
  const { pod, ...rest } = review
  return JSON.stringify([rest, imagesOf(pod), addPullSecret(pod, 'x')])
}

t.test('a body that is parsed in slices gives the same result as JSON.parse', async t => {
  const random = createRandom(7)
  const different: string[] = []
  for (let n = 0; n < 2000; n++) {
    const text = n % 2 === 0 ? generateReview(random) : generate(random, 6)
    const whole = JSON.parse(text)
    const sliced = parse(text, 1 + random(40))
    const isSame = JSON.stringify(sort(pickFields(whole))) === JSON.stringify(sort(sliced))
    if (!isSame || resultOf(whole) !== resultOf(sliced)) different.push(text)
  }
  t.strictSame(different, [])
  t.equal(({} as { image?: unknown }).image, undefined, 'no other object changed')
})

t.test('invalid JSON is refused by the slice parser too', async t => {
  const texts = [
    '',
    ' ',
    '{',
    '[',
    '}',
    ']',
    '{]',
    '[}',
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '[1,]',
    '[,1]',
    '{,}',
  ]
  texts.push(
    '1 2',
    '{} {}',
    '{"a":1 "b":2}',
    '["a":1]',
    '{1:2}',
    'nul',
    '"a',
    '{"a":tru}',
    '[1 2]',
    ':',
    ',',
  )
  texts.push(
    '"\u0001"',
    "{'a':1}",
    '{"a":01}',
    '{"a":+1}',
    '{"a":.5}',
    '[NaN]',
    '{null:1}',
    '{"a"::1}',
  )
  texts.push('['.repeat(1 << 20), `${'['.repeat(20_000)}${']'.repeat(20_000)}`)
  for (const text of texts) {
    for (const piece of [1, 1 << 20]) {
      if (text.length > 100_000 && piece === 1) continue
      t.throws(() => parse(text, piece), SyntaxError, text.slice(0, 20))
    }
  }
  t.same(parse('[1]'), [])
  t.same(parse(' 7 '), 7)
})

t.test('a list of empty objects is not kept in memory', async t => {
  const containers = `[${'{},'.repeat(100_000)}{"image":"a"}]`
  const text = `{"request":{"object":{"spec":{"containers":${containers},"imagePullSecrets":[{},{},{}]}}}}`
  const spec = { containers: [{}, { image: 'a' }], imagePullSecrets: [{}] }
  t.strictSame(parse(text), { request: { object: { spec } } })
})

t.test('a pod with more images than fit into etcd is refused', async t => {
  const containers = `[${'{"image":"a"},'.repeat(300_000)}{}]`
  t.throws(
    () => parse(`{"request":{"object":{"spec":{"containers":${containers}}}}}`),
    TooManyValues,
  )
})

/** With the keys of every object in order. */
function sort(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sort)
  if (typeof value !== 'object' || value === null) return value
  return Object.entries(value)
    .map(([key, field]) => [key, sort(field)])
    .toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1))
}

const characters = [
  ...['a', '\\\\', '\\"', '\\u00e4', '\\ud83d\\ude00', 'ü', '€', '😀', '{', '\\n', '\\\\\\\\'],
]

/** A JSON list of strings, and the length of each in bytes. */
function generateStrings(random: (below: number) => number): { json: string; bytes: number[] } {
  const texts = Array.from({ length: 1 + random(4) }, () =>
    Array.from({ length: random(30) }, () => characters[random(characters.length)]).join(''),
  )
  const json = `[${texts.map(text => `"${text}"`).join(', ')}]`
  return { json, bytes: texts.map(text => Buffer.byteLength(text)) }
}

function cutStrings(json: string, most: number, pieceBytes: number): string[] {
  const bytes = Buffer.from(json)
  const cutter = new StringCutter(most)
  const kept: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    kept.push(...cutter.cut(bytes.subarray(at, at + pieceBytes)))
  }
  return JSON.parse(Buffer.concat(kept).toString())
}

t.test('a long string keeps its beginning, and nothing else is cut', async t => {
  const random = createRandom(7)
  const isRight = (found: string | undefined, whole: string, bytes: number) =>
    bytes <= 12
      ? found === whole
      : found !== undefined && whole.startsWith(found) && Buffer.byteLength(found) < 24
  let wrong: string | undefined
  for (let round = 0; round < 5000; round++) {
    const { json, bytes } = generateStrings(random)
    const found = cutStrings(json, 12, 1 + random(20))
    const whole: string[] = JSON.parse(json)
    const isSame = whole.every((text, index) => isRight(found[index], text, bytes[index] ?? 0))
    if (!isSame || found.length !== whole.length) wrong ??= `${json} gives ${found}`
  }
  t.equal(wrong, undefined)
})

t.test('of a body with long strings in other fields, the fields are read', async t => {
  const env = Array.from({ length: 20 }, () => ({ value: '<"\\'.repeat(50_000) }))
  const body = {
    request: { uid: 'u', object: { spec: { containers: [{ env, image: 'x/y:1' }] } } },
  }
  for (const piece of [1000, 1 << 16]) {
    t.same(parse(JSON.stringify(body).replaceAll('<', '\\u003c'), piece), pickFields(body))
  }
})

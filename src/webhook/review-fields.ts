import { Tokenizer, TokenType } from '@streamparser/json'
import { injectLabel } from '../names.ts'
import { StringCutter } from './cut-strings.ts'
import { isObject, MIRROR_ANNOTATION } from './pod.ts'

/**
 * The fields of an AdmissionReview that pullpass reads, out of a small body (parsed already) or a
 * large one (parsed in slices). Both give the same value:
 *
 * | in the body                        | what is kept                                             |
 * |------------------------------------|----------------------------------------------------------|
 * | a field of the shape below         | it; of a name that occurs twice, the last                |
 * | any other field                    | nothing                                                  |
 * | a list of the shape                | its first entry, and each object with a field of ours    |
 * | an object or list in another place | `{}` or `[]`: neither a text nor a number                |
 * | a string of more than 4 KiB        | of a large body its beginning: no field needs more       |
 */
type Shape =
  | { kind: 'value' }
  | { kind: 'object'; fields: Record<string, Shape> }
  | { kind: 'list'; entries: Shape }

const value: Shape = { kind: 'value' }
const object = (fields: Record<string, Shape>): Shape => ({ kind: 'object', fields })
const list = (entries: Shape): Shape => ({ kind: 'list', entries })
const containers = list(object({ image: value }))

const pod = object({
  metadata: object({
    name: value,
    generateName: value,
    labels: object({ [injectLabel]: value }),
    annotations: object({ [MIRROR_ANNOTATION]: value }),
  }),
  spec: object({
    containers,
    initContainers: containers,
    ephemeralContainers: containers,
    volumes: list(object({ image: object({ reference: value }) })),
    imagePullSecrets: list(object({ name: value })),
    serviceAccountName: value,
    serviceAccount: value,
  }),
})

const review = object({
  apiVersion: value,
  kind: value,
  request: object({
    uid: value,
    kind: object({ group: value, version: value, kind: value }),
    namespace: value,
    operation: value,
    dryRun: value,
    subResource: value,
    name: value,
    object: pod,
  }),
})

/** As Go's encoding/json, with which the API server reads and writes. */
const DEEPEST = 10_000
/**
 * Entries of lists. A container takes some 80 bytes of etcd's 1.5 MiB (the API server fills in its
 * policies), a volume or a pull secret 10: no pod that is stored has as many.
 */
const MOST_ENTRIES = 200_000
/** Bytes between two pauses: about a millisecond where every byte is a token. */
const SLICE = 2 << 10

/** No name, label or image reference that Kubernetes accepts is as long. */
const LONGEST_STRING = 4 << 10

/** Thrown for a body that no pod of a cluster can have. */
export class TooManyValues extends Error {
  override name = 'TooManyValues'
}

/** The fields of a body that was parsed. */
export function pickFields(body: unknown): unknown {
  return pick(body, review)
}

/**
 * The fields of a body as it arrived. Yields after each slice, so that others can have a turn.
 *
 * @throws SyntaxError where it is no JSON; TooManyValues
 */
export function* parseFields(chunks: readonly Uint8Array[]): Generator<void, unknown> {
  const builder = new FieldsBuilder()
  const tokenizer = new Tokenizer({ stringBufferSize: 64 << 10, numberBufferSize: 64 })
  tokenizer.onToken = ({ token, value }) => builder.take(token, value)
  try {
    let written = 0
    for (const part of partsOf(chunks)) {
      tokenizer.write(part)
      written += part.length
      if (written < SLICE) continue
      written = 0
      yield
    }
    if (!tokenizer.isEnded) tokenizer.end()
  } catch (error) {
    throw error instanceof TooManyValues ? error : new SyntaxError('not JSON')
  }
  return builder.result()
}

/** The chunks in small parts, without the ends of long strings. */
function* partsOf(chunks: readonly Uint8Array[]): Generator<Uint8Array> {
  const cutter = new StringCutter(LONGEST_STRING)
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += SLICE) {
      yield* cutter.cut(chunk.subarray(at, at + SLICE))
    }
  }
}

function pick(found: unknown, shape: Shape): unknown {
  if (Array.isArray(found)) return shape.kind === 'list' ? pickEntries(found, shape.entries) : []
  if (!isObject(found)) return found
  const kept: Record<string, unknown> = {}
  if (shape.kind !== 'object') return kept
  for (const [name, field] of Object.entries(shape.fields)) {
    if (Object.hasOwn(found, name)) kept[name] = pick(found[name], field)
  }
  return kept
}

function pickEntries(found: unknown[], shape: Shape): unknown[] {
  const kept: unknown[] = []
  for (const entry of found) addEntry(kept, pick(entry, shape))
  return kept
}

/** The first entry says that the list is not empty, which matters for pull secrets. */
function addEntry(kept: unknown[], entry: unknown): boolean {
  const isOfUse = kept.length === 0 || (isObject(entry) && Object.keys(entry).length > 0)
  if (isOfUse) kept.push(entry)
  return isOfUse
}

/** An open object or list; `kept` and `shape` are undefined where nothing in it is of interest. */
interface Open {
  isList: boolean
  kept: Record<string, unknown> | unknown[] | undefined
  shape: Shape | undefined
  key: string
}

type Expected = 'value' | 'first entry' | 'first key' | 'key' | 'colon' | 'comma' | 'nothing'

/** Checks the grammar of JSON on the tokens, and keeps what the shape names. */
class FieldsBuilder {
  #opened: Open[] = []
  #expected: Expected = 'value'
  #root: unknown
  #entries = 0

  take(token: TokenType, found: unknown): void {
    if (token === TokenType.LEFT_BRACE || token === TokenType.LEFT_BRACKET) {
      this.#begin(token === TokenType.LEFT_BRACKET)
    } else if (token === TokenType.RIGHT_BRACE || token === TokenType.RIGHT_BRACKET) {
      this.#end(token === TokenType.RIGHT_BRACKET)
    } else if (token === TokenType.COLON) {
      this.#demand('colon')
      this.#expected = 'value'
    } else if (token === TokenType.COMMA) {
      this.#demand('comma')
      this.#expected = this.#opened.at(-1)?.isList ? 'value' : 'key'
    } else {
      this.#single(token, found)
    }
  }

  result(): unknown {
    this.#demand('nothing')
    return this.#root
  }

  #demand(...wanted: Expected[]): void {
    if (!wanted.includes(this.#expected)) throw new SyntaxError('not JSON')
  }

  #begin(isList: boolean): void {
    this.#demand('value', 'first entry')
    if (this.#opened.length >= DEEPEST) throw new SyntaxError('nested too deep')
    const shape = shapeIn(this.#opened.at(-1))
    const fits = shape?.kind === (isList ? 'list' : 'object')
    const empty = isList ? [] : {}
    this.#opened.push({
      isList,
      kept: shape && empty,
      shape: fits ? shape : undefined,
      key: '',
    })
    this.#expected = isList ? 'first entry' : 'first key'
  }

  #end(isList: boolean): void {
    this.#demand('comma', isList ? 'first entry' : 'first key')
    const ended = this.#opened.pop()
    if (ended?.isList !== isList) throw new SyntaxError('not JSON')
    this.#add(ended.kept)
  }

  #single(token: TokenType, found: unknown): void {
    const parent = this.#opened.at(-1)
    const isKey = this.#expected === 'key' || this.#expected === 'first key'
    if (isKey && parent !== undefined && token === TokenType.STRING) {
      parent.key = found as string
      this.#expected = 'colon'
      return
    }
    this.#demand('value', 'first entry')
    this.#add(found)
  }

  #add(found: unknown): void {
    const parent = this.#opened.at(-1)
    this.#expected = parent === undefined ? 'nothing' : 'comma'
    if (parent === undefined) this.#root = found
    else if (shapeIn(parent) !== undefined) this.#keep(parent, found)
  }

  #keep({ kept, key }: Open, found: unknown): void {
    if (!Array.isArray(kept)) {
      if (kept !== undefined) kept[key] = found
      return
    }
    if (addEntry(kept, found)) this.#entries += 1
    if (this.#entries > MOST_ENTRIES) throw new TooManyValues()
  }
}

/** The shape of what stands at this place; undefined where it is of no interest. */
function shapeIn(parent: Open | undefined): Shape | undefined {
  if (parent === undefined) return review
  const { shape, key } = parent
  if (shape?.kind === 'list') return shape.entries
  if (shape?.kind !== 'object' || !Object.hasOwn(shape.fields, key)) return undefined
  return shape.fields[key]
}

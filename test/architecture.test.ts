import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'
import ts from 'typescript'
import { checkFactories } from './factories.ts'

/**
 * Which package may import which. A package may import itself, and each package may import the
 * leaves. A file beside the packages counts as a package.
 */
const allowed: Record<string, readonly string[]> = {
  main: ['service', 'commands', 'config', 'kubernetes', 'part-settings'],
  service: [
    'bluemix',
    'certificate',
    'config',
    'controller',
    'health',
    'issuer',
    'kubernetes',
    'part-settings',
    'pull-secret',
    'webhook',
  ],
  'part-settings': ['bluemix', 'config', 'controller', 'pull-secret'],
  commands: ['bluemix', 'config', 'controller', 'issuer', 'kubernetes', 'pull-secret'],
  health: [],
  webhook: ['pull-secret'],
  controller: ['pull-secret', 'issuer', 'kubernetes'],
  bluemix: ['issuer'],
  certificate: ['kubernetes'],
  'pull-secret': ['kubernetes'],
  issuer: [],
  kubernetes: [],
  config: [],
}

/** Small files for all packages. They import nothing of ours. */
const leaves = ['failure', 'jwt', 'names', 'time-limit']

/** Files without I/O, clock, randomness or environment: data in, data out. */
const pure = [
  'failure',
  'jwt',
  'names',
  'webhook/review',
  'webhook/pod',
  'webhook/image-reference',
  'webhook/decision',
  'webhook/response',
  'controller/plan',
  'controller/revocation',
  'pull-secret/pull-secret',
  'issuer/issuer',
  'certificate/certificate',
]

/** Modules that a pure file must not import. Of node:crypto and node:net it uses only calculations. */
const impureModules =
  /^(node:(?!buffer$|crypto$|net$)|pino|undici|fastify|prom-client|@kubernetes\/client-node)/
const impureWords =
  /\bDate\.now\(|randomUUID|randomBytes|createServer|createConnection|new Date\(\)|performance\.now\(|Math\.random\(|process\.|console\./

const LONGEST_FILE = 300
const LONGEST_FUNCTION = 40
const MOST_DEPENDENCIES = 8

/** Files that do not follow the rules about factories yet: the test fails for one that does. */
const notYet: readonly string[] = []

/** Each rule has one place. */
const places: [rule: string, pattern: RegExp, files: string[]][] = [
  ['the label', /'pullpass\.io\/inject'/, ['src/names.ts']],
  ['the grammar of namespaces', /a-z0-9\]\{0,61\}/, ['src/names.ts']],
  ['the id of a token', /\bjti\b.*exec/, ['src/jwt.ts']],
  ['server-side apply', /PatchStrategy\.ServerSideApply/, ['src/kubernetes/client.ts']],
  ['a race of promises', /Promise\.race\(/, ['src/main.ts']],
]

interface SourceFile {
  path: string
  text: string
  imports: { specifier: string; typeOnly: boolean }[]
}

const files = globSync('src/**/*.ts').map(readSource)

t.test('packages import each other in one direction only', async t => {
  for (const { path, imports } of files) {
    const from = packageOf(path)
    const wrong = imports
      .filter(({ specifier }) => specifier.startsWith('.'))
      .map(({ specifier }) => packageOf(normalize(join(dirname(path), specifier))))
      .filter(to => to !== from && !leaves.includes(to) && !allowed[from]?.includes(to))
    t.strictSame(wrong, [], `${path} imports only what ${from} may import`)
  }
})

t.test('no file imports itself through other files', async t => {
  const links = new Map(
    files.map(({ path, imports }) => [
      path,
      imports
        .filter(({ specifier }) => specifier.startsWith('.'))
        .map(({ specifier }) => normalize(join(dirname(path), specifier))),
    ]),
  )
  t.strictSame(circlesIn(links), [])
})

t.test('pure files have no I/O, clock, randomness or environment', async t => {
  for (const name of pure) {
    const file = files.find(({ path }) => path === `src/${name}.ts`)
    t.ok(file, `src/${name}.ts exists`)
    if (file === undefined) continue
    const { path, text, imports } = file
    const reached = imports.filter(
      ({ specifier, typeOnly }) => !typeOnly && impureModules.test(specifier),
    )
    t.strictSame(reached, [], `${path} imports nothing that does I/O`)
    t.notMatch(text, impureWords, `${path} uses no clock, randomness or environment`)
  }
})

t.test('each rule has one place', async t => {
  for (const [rule, pattern, expected] of places) {
    const found = files.filter(({ text }) => pattern.test(text)).map(({ path }) => path)
    t.strictSame(found.toSorted(), expected, rule)
  }
})

t.test('a factory gets the properties that it declares, and no others', async t => {
  const wrong = checkFactories(
    files.map(({ path }) => path),
    MOST_DEPENDENCIES,
  )
  for (const { path } of files) {
    const found = wrong.filter(each => each.path === path).map(({ problem }) => problem)
    if (notYet.includes(path)) t.not(found.length, 0, `${path} follows the rules: unlist it`)
    else t.strictSame(found, [], path)
  }
})

t.test('only main.ts reads the environment', async t => {
  const readers = files.filter(({ text }) => text.includes('process.env')).map(({ path }) => path)
  t.strictSame(readers, ['src/main.ts'])
})

t.test('files and functions do not exceed their size limits', async t => {
  for (const { path, text } of files) {
    const lines = text.trimEnd().split('\n').length
    t.ok(lines <= LONGEST_FILE, `${path} has at most ${LONGEST_FILE} lines`)
    t.strictSame(longFunctions(path, text), [], `${path}: functions to ${LONGEST_FUNCTION} lines`)
  }
})

function readSource(path: string): SourceFile {
  const text = readFileSync(path, 'utf8')
  const imports = ts
    .createSourceFile(path, text, ts.ScriptTarget.Latest)
    .statements.flatMap(statement => {
      const isLink = ts.isImportDeclaration(statement) || ts.isExportDeclaration(statement)
      if (!isLink || !statement.moduleSpecifier) return []
      const specifier = (statement.moduleSpecifier as ts.StringLiteral).text
      const typeOnly = ts.isImportDeclaration(statement)
        ? statement.importClause?.isTypeOnly === true
        : statement.isTypeOnly
      return [{ specifier, typeOnly }]
    })
  return { path, text, imports }
}

function packageOf(path: string): string {
  return path.split('/')[1]?.replace(/\.ts$/, '') ?? ''
}

/** Every circle once, as `a.ts -> b.ts -> a.ts`. */
function circlesIn(links: Map<string, string[]>): string[] {
  const found = new Set<string>()
  const visit = (path: string, road: string[]) => {
    const at = road.indexOf(path)
    if (at >= 0) {
      const circle = road.slice(at)
      const first = circle.indexOf(circle.toSorted()[0] ?? '')
      found.add([...circle.slice(first), ...circle.slice(0, first), circle[first]].join(' -> '))
      return
    }
    if (done.has(path)) return
    for (const next of links.get(path) ?? []) visit(next, [...road, path])
    done.add(path)
  }
  const done = new Set<string>()
  for (const path of links.keys()) visit(path, [])
  return [...found]
}

function longFunctions(path: string, text: string): string[] {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
  const found: string[] = []
  const visit = (node: ts.Node) => {
    if (ts.isFunctionLike(node) && 'body' in node && node.body) {
      const line = (at: number) => source.getLineAndCharacterOfPosition(at).line
      const length = line(node.getEnd()) - line(node.getStart()) + 1
      if (length > LONGEST_FUNCTION)
        found.push(`line ${line(node.getStart()) + 1}: ${length} lines`)
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'
import ts from 'typescript'

/**
 * Which package may import which; a package may always import itself, and each may import
 * `failure`. Files beside the packages stand for themselves.
 */
const allowed: Record<string, readonly string[]> = {
  main: ['service', 'commands', 'config', 'kubernetes'],
  service: [
    'bluemix',
    'certificate',
    'config',
    'controller',
    'health',
    'issuer',
    'kubernetes',
    'pull-secret',
    'webhook',
  ],
  commands: ['service', 'bluemix', 'config', 'controller', 'issuer', 'kubernetes', 'pull-secret'],
  health: [],
  webhook: ['pull-secret'],
  controller: ['pull-secret', 'issuer', 'kubernetes'],
  bluemix: ['issuer'],
  certificate: ['kubernetes'],
  'pull-secret': ['kubernetes'],
  issuer: [],
  kubernetes: [],
  config: [],
  failure: [],
}

/** Files without I/O, clock, randomness or environment: data in, data out. */
const pure = [
  'failure',
  'webhook/review',
  'webhook/pod',
  'webhook/image-reference',
  'webhook/decision',
  'webhook/response',
  'controller/plan',
  'pull-secret/pull-secret',
  'issuer/issuer',
  'certificate/certificate',
]

/** Modules that a pure file must not import. Of node:crypto and node:net it may use what only calculates. */
const impureModules =
  /^(node:(?!buffer$|crypto$|net$)|pino|undici|fastify|prom-client|@kubernetes\/client-node)/
const impureWords =
  /\bDate\.now\(|randomUUID|randomBytes|createServer|createConnection|new Date\(\)|performance\.now\(|Math\.random\(|process\.|console\./

const LONGEST_FILE = 300
const LONGEST_FUNCTION = 40

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
      .filter(to => to !== from && to !== 'failure' && !allowed[from]?.includes(to))
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

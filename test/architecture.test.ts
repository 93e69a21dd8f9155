import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'
import ts from 'typescript'

/**
 * Which room may use which; a room may always use itself. Files beside the rooms stand for
 * themselves. Nobody but `main` uses `app`.
 */
const allowed: Record<string, readonly string[]> = {
  main: ['app', 'bug', 'commands', 'config', 'kubernetes'],
  commands: ['parts', 'keeper', 'kubernetes', 'registry-token'],
  app: ['health', 'parts', 'server', 'keeper', 'mutate-pod'],
  health: ['parts', 'keeper', 'kubernetes'],
  parts: [
    'bluemix',
    'certificate',
    'config',
    'keeper',
    'kubernetes',
    'mutate-pod',
    'pull-secret',
    'registry-token',
  ],
  'mutate-pod': ['admission', 'bug', 'clip', 'line-limit', 'pull-secret'],
  admission: ['image'],
  image: [],
  'pull-secret': ['registry-token', 'kubernetes'],
  keeper: ['bug', 'clip', 'pull-secret', 'registry-token', 'kubernetes'],
  'registry-token': ['clip'],
  bluemix: ['registry-token'],
  kubernetes: ['bug'],
  certificate: ['kubernetes'],
  server: ['admission', 'bug', 'line-limit'],
  'line-limit': [],
  clip: [],
  config: [],
  bug: [],
}

/** Named for a thing, so pure: data in, data out. */
const pure = [
  'bug',
  'clip',
  'image/*',
  'admission/*',
  'registry-token/registry-token',
  'registry-token/own-tokens',
  'pull-secret/pull-secret',
  'pull-secret/docker-config',
  'pull-secret/organization',
  'pull-secret/plan',
  'keeper/refusal',
  'certificate/certificate',
]

/**
 * What a pure file must not reach: modules of the world, the clock, chance, the environment. Of
 * node:crypto and node:net it may use what only calculates.
 */
const impureModules =
  /^(node:(?!buffer$|crypto$|net$)|pino|undici|fastify|prom-client|@kubernetes\/client-node)/
const impureWords =
  /\bDate\.now\(|randomUUID|randomBytes|createServer|createConnection|new Date\(\)|performance\.now\(|Math\.random\(|process\.|console\./

interface SourceFile {
  path: string
  text: string
  imports: { specifier: string; typeOnly: boolean }[]
}

const files = globSync('src/**/*.ts').map(readSource)

t.test('rooms use each other one way only', async t => {
  for (const { path, imports } of files) {
    const room = roomOf(path)
    const used = imports
      .filter(({ specifier }) => specifier.startsWith('.'))
      .map(({ specifier }) => roomOf(normalize(join(dirname(path), specifier))))
    const wrong = used.filter(other => other !== room && !allowed[room]?.includes(other))
    t.strictSame(wrong, [], `${path} keeps to what ${room} may use`)
  }
})

t.test('files named for a thing are pure', async t => {
  for (const pattern of pure) {
    const matching = files.filter(({ path }) => matches(path, pattern))
    t.ok(matching.length > 0, `${pattern} exists`)
    for (const { path, text, imports } of matching) {
      const reached = imports.filter(
        ({ specifier, typeOnly }) => !typeOnly && impureModules.test(specifier),
      )
      t.strictSame(reached, [], `${path} imports nothing of the world`)
      t.notMatch(text, impureWords, `${path} knows no clock, chance or environment`)
    }
  }
})

t.test('the environment is read at the door only', async t => {
  const readers = files.filter(({ text }) => text.includes('process.env')).map(({ path }) => path)
  t.strictSame(readers, ['src/main.ts'])
})

t.test('files and functions stay small', async t => {
  for (const { path, text } of files) {
    t.ok(text.trimEnd().split('\n').length <= 300, `${path} has at most 300 lines`)
    t.strictSame(longFunctions(path, text), [], `${path} has no function over 40 lines`)
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

function roomOf(path: string): string {
  return path.split('/')[1]?.replace(/\.ts$/, '') ?? ''
}

function matches(path: string, pattern: string): boolean {
  const name = path.slice('src/'.length, -'.ts'.length)
  return pattern.endsWith('/*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern
}

function longFunctions(path: string, text: string): string[] {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
  const found: string[] = []
  const visit = (node: ts.Node) => {
    if (ts.isFunctionLike(node) && 'body' in node && node.body) {
      const line = (at: number) => source.getLineAndCharacterOfPosition(at).line
      const length = line(node.getEnd()) - line(node.getStart()) + 1
      if (length > 40) found.push(`line ${line(node.getStart()) + 1}: ${length} lines`)
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

import { relative } from 'node:path'
import ts from 'typescript'

export interface Problem {
  path: string
  problem: string
}

/**
 * What breaks the rules about factories:
 *
 * | rule                                                                              |
 * |-----------------------------------------------------------------------------------|
 * | an object that is passed holds only properties that the parameter declares        |
 * | no type of dependencies, settings or options is made by Pick or Omit              |
 * | a factory declares at most `mostDependencies`                                     |
 *
 * The first rule is about the exported functions and classes of `paths`. It looks at each object that
 * is written where they are called, and at each variable that is passed to a factory. A function that
 * reads data may get a variable of a larger type.
 */
export function checkFactories(paths: string[], mostDependencies: number): Problem[] {
  const { config } = ts.readConfigFile('tsconfig.json', ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, '.')
  const program = ts.createProgram(paths, options)
  const types = createTypes(program, paths)
  const problems: Problem[] = []
  const visit = (node: ts.Node): void => {
    const found = [
      ...undeclaredIn(node, types),
      ...derivedIn(node),
      ...tooManyIn(node, types, mostDependencies),
    ]
    for (const text of found) problems.push(problemAt(node, text))
    ts.forEachChild(node, visit)
  }
  for (const path of paths) visit(program.getSourceFile(path) as ts.SourceFile)
  return problems
}

function problemAt(node: ts.Node, text: string): Problem {
  const source = node.getSourceFile()
  const line = source.getLineAndCharacterOfPosition(node.getStart()).line + 1
  return { path: relative('.', source.fileName), problem: `line ${line}: ${text}` }
}

type Types = ReturnType<typeof createTypes>

function createTypes(program: ts.Program, paths: string[]) {
  const checker = program.getTypeChecker()
  const own = new Set(paths.map(path => program.getSourceFile(path)))
  const isOwn = (node: ts.Node | undefined) => node !== undefined && own.has(node.getSourceFile())
  /** An interface or object type of ours; no array, function or instance of a class. */
  function isOwnObject(type: ts.Type): boolean {
    if (type.isUnionOrIntersection()) return type.types.some(isOwnObject)
    const isOther = type.isClass() || type.getCallSignatures().length > 0
    if (!(type.flags & ts.TypeFlags.Object) || isOther) return false
    return isOwn((type.aliasSymbol ?? type.symbol)?.declarations?.[0])
  }
  function propertiesOf(type: ts.Type): string[] {
    if (type.isUnion()) return [...new Set(type.types.flatMap(propertiesOf))]
    return checker.getPropertiesOfType(type).map(({ name }) => name)
  }
  return {
    isOwnObject,
    propertiesOf,
    of: (node: ts.Node) => checker.getTypeAtLocation(node),
    /** The exported function or class of ours that is called. */
    calleeOf: ({ expression }: Call) => {
      const found = checker.getSymbolAtLocation(expression)
      const isAlias = found !== undefined && found.flags & ts.SymbolFlags.Alias
      const symbol = isAlias ? checker.getAliasedSymbol(found) : found
      const declaration = symbol?.valueDeclaration
      const isCallee = declaration && isOwn(declaration) && isExported(declaration)
      return isCallee ? symbol : undefined
    },
    parametersOf: (call: Call) =>
      (checker.getResolvedSignature(call)?.parameters ?? []).map(parameter =>
        checker.getNonNullableType(checker.getTypeOfSymbolAtLocation(parameter, call)),
      ),
  }
}

type Call = ts.CallExpression | ts.NewExpression

function undeclaredIn(node: ts.Node, types: Types): string[] {
  if (!ts.isCallExpression(node) && !ts.isNewExpression(node)) return []
  const callee = types.calleeOf(node)
  if (callee === undefined) return []
  const parameters = types.parametersOf(node)
  return [...(node.arguments ?? [])].flatMap((argument, index) => {
    const parameter = parameters[index]
    if (parameter === undefined || !types.isOwnObject(parameter)) return []
    if (!isChecked(callee, argument)) return []
    const declared = new Set(types.propertiesOf(parameter))
    const given = types.propertiesOf(types.of(argument))
    const undeclared = given.filter(name => !declared.has(name))
    return undeclared.length > 0 ? [`${callee.name} does not declare ${undeclared.join(', ')}`] : []
  })
}

function isChecked({ name, flags }: ts.Symbol, argument: ts.Expression): boolean {
  if (ts.isObjectLiteralExpression(argument)) return true
  const isClass = Boolean(flags & ts.SymbolFlags.Class)
  return ts.isIdentifier(argument) && (isClass || isFactory(name))
}

function isFactory(name: string): boolean {
  return /^(create|build|guard)[A-Z]/.test(name)
}

function derivedIn(node: ts.Node): string[] {
  const types = [namedOptions(node), ...optionsOf(node).map(({ type }) => type)]
  const derived = types.filter(type => /\b(Pick|Omit)</.test(type?.getText() ?? ''))
  return derived.map(type => `a type of options is derived: ${type?.getText().slice(0, 60)}`)
}

function namedOptions(node: ts.Node): ts.Node | undefined {
  if (!ts.isInterfaceDeclaration(node) && !ts.isTypeAliasDeclaration(node)) return undefined
  return /(Dependencies|Settings|Options)$/.test(node.name.text) ? node : undefined
}

/** The parameters of an exported function that are dependencies, settings or options. */
function optionsOf(node: ts.Node): ts.ParameterDeclaration[] {
  if (!ts.isFunctionDeclaration(node) || !isExported(node)) return []
  return node.parameters.filter(
    ({ name }) =>
      ts.isObjectBindingPattern(name) || /^(dependencies|settings|options)$/.test(name.getText()),
  )
}

function tooManyIn(node: ts.Node, types: Types, most: number): string[] {
  if (!ts.isFunctionDeclaration(node) || !isFactory(node.name?.text ?? '')) return []
  const [first] = optionsOf(node)
  if (first === undefined || first !== node.parameters[0]) return []
  const count = types.propertiesOf(types.of(first)).length
  return count > most ? [`${node.name?.text} has ${count} dependencies`] : []
}

function isExported(declaration: ts.Node): boolean {
  const isVariable = ts.isVariableDeclaration(declaration)
  const statement = isVariable ? declaration.parent.parent : declaration
  if (!ts.canHaveModifiers(statement)) return false
  const modifiers = ts.getModifiers(statement) ?? []
  return modifiers.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)
}

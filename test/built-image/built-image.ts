// Not a *.test.ts: it needs root, buildah and some minutes. `npm run test:image` runs it.
import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import t from 'tap'
import { makeFolder, run } from '../../sandbox/processes.ts'
import { nodeFlags } from '../../scripts/bundle.ts'
import { readSourceMap, withSourceLines } from '../../scripts/frames.ts'
import { pod, reference } from '../e2e/pods.ts'
import { type BuiltImage, buildImage, project } from './build-image.ts'
import { obstacleToBuilding } from './buildah.ts'
import { containerOf } from './container.ts'
import { serveImage } from './serving-image.ts'

const PROGRAM = 'app/pullpass.mjs'
const NODE = 'usr/local/bin/node'

const obstacle = await obstacleToBuilding()
if (obstacle === undefined) await checkImage()
else t.fail(obstacle)

async function checkImage(): Promise<void> {
  const folder = await makeFolder('built-image')
  const image = await buildImage(folder.path)
  // Not earlier: after a timeout, the test is torn down while buildah still writes.
  t.teardown(folder.remove)
  t.comment(`built from ${image.revision} in ${image.buildSeconds.toFixed(0)} s`)

  t.test('the image adds only Node and one program file to its base', async t => {
    const base = await sizesIn(image.baseRoot)
    const all = await sizesIn(image.root)
    const added = [...all.keys()].filter(file => !base.has(file))
    t.same(added.sort(), [PROGRAM, NODE])
    const baseBytes = [...base.values()].reduce((sum, bytes) => sum + bytes, 0)
    const bytes = [...all.values()].reduce((sum, bytes) => sum + bytes, 0)
    t.comment(`image ${mb(bytes)}, compressed ${mb(image.downloadBytes)}`)
    const components = { base: baseBytes, node: all.get(NODE), bundle: all.get(PROGRAM) }
    for (const [name, size = 0] of Object.entries(components)) t.comment(`  ${name} ${mb(size)}`)
  })

  t.test('the image runs Node with the flags that the sandbox runs it with', async t => {
    t.same(image.config.Entrypoint, [`/${NODE}`, ...nodeFlags, `/${PROGRAM}`])
  })

  t.test('the image names its content and user, but not the machine that built it', async t => {
    const { version, description, license } = JSON.parse(await read(image.checkout, 'package.json'))
    t.match(image.config.Labels, {
      'org.opencontainers.image.title': 'pullpass',
      'org.opencontainers.image.description': description,
      'org.opencontainers.image.licenses': license,
      'org.opencontainers.image.version': version,
      'org.opencontainers.image.revision': String,
    })
    t.equal(image.config.User, '65532:65532')
    const env = image.config.Env.filter(each => !each.startsWith('PATH='))
    t.match(env, [
      'NODE_ENV=production',
      /^MALLOC_ARENA_MAX=/,
      /^MALLOC_MMAP_THRESHOLD_=/,
      /^MALLOC_TRIM_THRESHOLD_=/,
    ])
  })

  t.test('the same commit gives the same program, in the image and outside', async t => {
    await bundleHere(image)
    const here = await read(image.checkout, 'dist/pullpass.js')
    t.ok((await read(image.root, PROGRAM)) === here)
  })

  t.test('a stack trace of the image can be translated to lines of the source', async t => {
    const { code, stdout, stderr } = await run(await tracedHelp(image, join(folder.path, 'help')))
    t.equal(code, 0, { stderr })
    t.match(stdout, 'Usage: pullpass')
    const map = readSourceMap(join(image.checkout, 'dist/pullpass.js.map'))
    const [, line] = withSourceLines(stderr, map).match(/src\/main\.ts:(\d+)/) ?? []
    const source = (await read(image.checkout, 'src/main.ts')).split('\n')
    t.match(source[Number(line) - 1] ?? '', 'program.parseAsync()', { stderr })
  })

  t.test('the image answers reviews with a read-only root and without privileges', async t => {
    const serving = await serveImage(t, { image, folder: join(folder.path, 'serving') })
    const { cluster, process, listeningMs, readyMs } = serving
    t.comment(`start-up: listening ${listeningMs.toFixed(0)} ms, ready ${readyMs.toFixed(0)} ms`)
    const proc = `/proc/${process.pid}`
    const status = await read(proc, 'status')
    t.match(status, /^Uid:\t65532\t65532\t65532\t65532$/m)
    t.match(status, /^Gid:\t65532\t65532\t65532\t65532$/m)
    t.match(status, /^Groups:\t\s*$/m)
    t.match(status, /^CapEff:\t0+$/m)
    t.match(await read(proc, 'mountinfo'), /^\d+ \d+ \S+ \S+ \/ ro,/m, 'the root')
    await cluster.namespace('shop')
    const { status: code, body } = await cluster.create('shop', pod('mypod'))
    t.equal(code, 201, body.message ?? '')
    t.same(body.spec?.imagePullSecrets, [reference])
    t.ok(await cluster.whenSecret('shop'))
    process.signal('SIGTERM')
    t.same(await process.ended, { code: 0, signal: null }, { output: process.output() })
  })
}

/** Bundles the commit with the packages that are installed here. */
async function bundleHere({ checkout }: BuiltImage): Promise<void> {
  const modules = join(checkout, 'node_modules')
  await mkdir(modules)
  // Not links, because the names of files are part of the result.
  const script = 'mount --bind "$1" "$2" && exec "$3" scripts/bundle.ts'
  const words = [join(project, 'node_modules'), modules, process.execPath]
  const { code, stderr } = await run({
    command: 'unshare',
    args: ['--mount', '--propagation', 'private', '/bin/sh', '-c', script, 'sh', ...words],
    cwd: checkout,
  })
  if (code !== 0) throw new Error(`scripts/bundle.ts: ${stderr}`)
}

/** Runs `--help`; the program then writes the position of its code to stderr. */
async function tracedHelp(image: BuiltImage, folder: string) {
  const trace = `const { write } = process.stdout
    process.stdout.write = function (...words) {
      console.error(new Error('written').stack)
      return write.apply(this, words)
    }`
  const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(trace)}`
  return containerOf({ image, folder, args: ['--help'], env: { NODE_OPTIONS } })
}

/** Bytes of each file, by its path below `root`. */
async function sizesIn(root: string): Promise<Map<string, number>> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  const files = entries.filter(entry => entry.isFile())
  return new Map(
    await Promise.all(
      files.map(async ({ parentPath, name }) => {
        const file = join(parentPath, name)
        return [relative(root, file), (await stat(file)).size] as const
      }),
    ),
  )
}

async function read(folder: string, file: string): Promise<string> {
  return readFile(join(folder, file), 'utf8')
}

function mb(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}

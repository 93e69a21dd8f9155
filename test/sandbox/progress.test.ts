import { join } from 'node:path'
import t from 'tap'
import { run } from '../../sandbox/processes.ts'
import { wrap } from '../../sandbox/progress.ts'

t.test('without a terminal, each step is one line, however long it takes', async t => {
  const program = `
    const { print, startProgress } = await import('./sandbox/progress.ts')
    const progress = startProgress('building etcd')
    await new Promise(resolve => setTimeout(resolve, 2500))
    progress.now('building kubectl')
    print('a line')
    progress.stop()`
  const { code, stdout, stderr } = await run({
    command: process.execPath,
    args: ['--input-type=module', '--eval', program],
    cwd: join(import.meta.dirname, '..', '..'),
  })
  t.strictSame([code, stdout], [0, 'a line\n'])
  t.equal(stderr, 'building etcd ...\nbuilding kubectl ...\n')
})

t.test('a long line is broken between words, and what continues it is indented', async t => {
  const words = Array.from({ length: 40 }, (_, index) => `word-${index}`)
  const lines = wrap(`  ok  ${words.join(' ')}`, '      ').split('\n')
  t.ok(lines.length > 1)
  t.strictSame(
    lines.flatMap(line => line.trim().split(/\s+/)),
    ['ok', ...words],
  )
  t.ok(lines.every(line => line.length < 100))
  t.ok(lines.slice(1).every(line => line.startsWith('      word-')))
})

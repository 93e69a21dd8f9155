import { spawn } from 'node:child_process'
import type { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'

let janitor: Writable | undefined

/**
 * Tells the janitor of this process what to end and remove should this process end without doing so
 * itself; the lines are described in janitor.sh. There is one janitor for the life of a process: its
 * input ends when the process ends, and that is the whole signal.
 */
export function tellJanitor(line: string): void {
  janitor ??= startJanitor()
  janitor.write(`${line}\n`)
}

function startJanitor(): Writable {
  const script = fileURLToPath(new URL('janitor.sh', import.meta.url))
  const child = spawn('/bin/sh', [script], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // A session of its own, so that Ctrl-C does not reach it.
    detached: true,
    cwd: '/',
  })
  const input = child.stdin as Writable & { unref(): void }
  child.unref()
  input.unref()
  return input
}

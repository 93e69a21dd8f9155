import { spawn } from 'node:child_process'
import type { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'

let janitor: Writable | undefined

/**
 * Sends a line to the janitor of this process; janitor.sh describes the lines. If this process ends
 * without cleaning up, the janitor ends its programs and removes its folders. There is one janitor
 * for each process. Its input is closed when the process ends; no other signal is needed.
 */
export function tellJanitor(line: string): void {
  janitor ??= startJanitor()
  janitor.write(`${line}\n`)
}

function startJanitor(): Writable {
  const script = fileURLToPath(new URL('janitor.sh', import.meta.url))
  const child = spawn('/bin/sh', [script], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // Its own session, so that Ctrl-C does not reach it.
    detached: true,
    cwd: '/',
  })
  const input = child.stdin as Writable & { unref(): void }
  child.unref()
  input.unref()
  return input
}

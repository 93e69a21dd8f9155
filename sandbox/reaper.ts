import { spawn } from 'node:child_process'
import type { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'

let reaper: Writable | undefined

/**
 * Sends a line to the reaper of this process; reaper.sh describes the lines. If this process ends
 * without cleaning up, the reaper ends its programs and removes its folders. There is one reaper
 * for each process. Its input is closed when the process ends; no other signal is needed.
 */
export function notifyReaper(line: string): void {
  reaper ??= startReaper()
  reaper.write(`${line}\n`)
}

function startReaper(): Writable {
  const script = fileURLToPath(new URL('reaper.sh', import.meta.url))
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

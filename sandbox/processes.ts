import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { notifyReaper } from './reaper.ts'

export interface Program {
  /** Its name in messages, e.g. `kube-apiserver`; default: the command. */
  name?: string
  command: string
  args?: string[]
  /** The complete environment of the child; default: that of this process. */
  env?: NodeJS.ProcessEnv
  cwd?: string
}

export interface RunningProcess {
  readonly pid: number
  /** Its output on stdout and stderr, in order of arrival. */
  output(): string
  running(): boolean
  /** Resolves when it has ended, for whatever reason; never rejects. */
  readonly ended: Promise<Ending>
  signal(signal: NodeJS.Signals): void
  /** SIGTERM, and SIGKILL after `graceMs` (default 5000; 0 = SIGKILL at once). Resolves when it has ended. */
  stop(graceMs?: number): Promise<void>
}

export interface Ending {
  code: number | null
  signal: NodeJS.Signals | null
}

/**
 * Starts a long-running program and resolves when `ready` returns true (called every 50 ms). Rejects
 * with the last lines of its output if it ends earlier, or if it is not ready after `readyWithinMs`
 * (default 60 s; then it is killed). Output is appended to `outputFile` or kept in memory. The
 * program is killed at the latest when this process ends, also by SIGKILL.
 */
export async function startProcess(
  program: Program & {
    outputFile?: string
    ready?: (started: RunningProcess) => boolean | Promise<boolean>
    readyWithinMs?: number
  },
): Promise<RunningProcess> {
  const { ready = () => true, readyWithinMs = 60_000, outputFile } = program
  const name = program.name ?? program.command
  const started = outputFile === undefined ? keepInMemory(program) : writeTo(outputFile, program)
  try {
    await waitFor(
      () => {
        if (!started.running()) throw new Error(`${name} ended before it was ready`)
        return ready(started)
      },
      { withinMs: readyWithinMs, what: `${name} to be ready` },
    )
    return started
  } catch (error) {
    await started.stop(0)
    const tail = started.output().trimEnd().split('\n').slice(-20).join('\n')
    throw new Error(`${(error as Error).message}; last output:\n${tail}`, { cause: error })
  }
}

/**
 * Runs a program until it ends and resolves with its output, for any exit code. Rejects only if the
 * program cannot be started. A program that was killed by a signal has `code` null.
 */
export async function run(
  program: Program & { input?: string },
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawnWatched(program, ['pipe', 'pipe', 'pipe'])
  const ended = ending(child)
  const stdout = collect(child.stdout)
  const stderr = collect(child.stderr)
  // A program that does not read its input closes it early; its exit code shows whether that matters.
  child.stdin?.on('error', () => {})
  child.stdin?.end(program.input ?? '')
  const { code } = await ended
  return { code, stdout: stdout(), stderr: stderr() }
}

export interface Folder {
  readonly path: string
  remove(): Promise<void>
}

/**
 * Makes a new folder, by default in the temporary folder of the system. It is removed at the latest
 * when this process ends.
 */
export async function makeFolder(purpose: string, within = tmpdir()): Promise<Folder> {
  const path = await mkdtemp(join(within, `pullpass-${purpose}-`))
  notifyReaper(`folder ${path}`)
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true, maxRetries: 5 })
      notifyReaper(`removed ${path}`)
    },
  }
}

/**
 * Checks `condition` until it is true: every 50 ms at first, and every 200 ms after some seconds.
 * Rejects with `waited 5 s for <what>` after `withinMs`, and if the condition rejects.
 */
export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  { withinMs, what }: { withinMs: number; what: string },
): Promise<void> {
  const begun = performance.now()
  while (!(await condition())) {
    const waitedMs = performance.now() - begun
    if (waitedMs > withinMs) throw new Error(`waited ${withinMs / 1000} s for ${what}`)
    await sleep(Math.min(200, Math.max(50, waitedMs / 10)))
  }
}

function keepInMemory(program: Program): RunningProcess {
  const child = spawnWatched(program, ['ignore', 'pipe', 'pipe'])
  const chunks: Buffer[] = []
  child.stdout?.on('data', chunk => chunks.push(chunk))
  child.stderr?.on('data', chunk => chunks.push(chunk))
  return asRunningProcess(child, () => Buffer.concat(chunks).toString())
}

function writeTo(outputFile: string, program: Program): RunningProcess {
  const file = openSync(outputFile, 'a')
  const child = spawnWatched(program, ['ignore', file, file])
  closeSync(file)
  return asRunningProcess(child, () => readFileSync(outputFile, 'utf8'))
}

function asRunningProcess(child: ChildProcess, output: () => string): RunningProcess {
  const ended = ending(child)
  const running = () => child.exitCode === null && child.signalCode === null
  const signal = (name: NodeJS.Signals) => {
    if (running()) killGroup(child.pid, name)
  }
  return {
    pid: child.pid as number,
    output,
    running,
    ended,
    signal,
    async stop(graceMs = 5000) {
      signal(graceMs > 0 ? 'SIGTERM' : 'SIGKILL')
      const timer = setTimeout(() => signal('SIGKILL'), graceMs)
      await ended
      clearTimeout(timer)
    },
  }
}

// The child waits until the reaper has its process ID: otherwise it would stay if this process were
// killed in between.
const GATE = 'read -r go <&3 && exec "$@" 3<&-'

function spawnWatched(
  { command, args = [], env = process.env, cwd }: Program,
  stdio: ('ignore' | 'pipe' | number)[],
): ChildProcess {
  const child = spawn('/bin/sh', ['-c', GATE, 'sh', command, ...args], {
    env,
    ...(cwd !== undefined && { cwd }),
    stdio: [...stdio, 'pipe'],
    detached: true,
  })
  if (child.pid === undefined) {
    child.once('error', () => {})
    throw new Error(`cannot start ${command}`)
  }
  notifyReaper(`process ${child.pid}`)
  const gate = child.stdio[3] as Writable
  gate.on('error', () => {})
  gate.end('go\n')
  child.once('exit', () => {
    // The processes that it started end too.
    killGroup(child.pid, 'SIGKILL')
    notifyReaper(`ended ${child.pid}`)
  })
  return child
}

async function ending(child: ChildProcess): Promise<Ending> {
  return new Promise(resolve => {
    child.once('close', (code, signal) => resolve({ code, signal }))
  })
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: Buffer[] = []
  stream?.on('data', chunk => chunks.push(chunk))
  return () => Buffer.concat(chunks).toString()
}

function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(-pid, signal)
  } catch {
    // It has ended already.
  }
}

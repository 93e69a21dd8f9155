import { mkdir, rm, stat, utimes } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Progress, startProgress } from '../progress.ts'
import { notifyReaper } from '../reaper.ts'

const BEAT_MS = 1000
const SILENCE_MS = 10_000

/**
 * Runs `work` while no other process runs such work. The lock is a folder that its holder touches
 * every second; a lock that was not touched for ten seconds belongs to a process that has ended. The
 * lock saves work; the result is correct without it too.
 */
export async function inTurn(
  lock: string,
  title: string,
  work: () => Promise<void>,
): Promise<void> {
  let waiting: Progress | undefined
  while (!(await take(lock))) {
    waiting ??= startProgress(`waiting to build ${title}: another process is building`)
    await sleep(BEAT_MS / 2)
  }
  waiting?.stop()
  const beat = setInterval(() => {
    const now = new Date()
    utimes(lock, now, now).catch(() => {})
  }, BEAT_MS)
  try {
    await work()
  } finally {
    clearInterval(beat)
    await rm(lock, { recursive: true, force: true })
    notifyReaper(`removed ${lock}`)
  }
}

async function take(lock: string): Promise<boolean> {
  try {
    await mkdir(lock)
    notifyReaper(`folder ${lock}`)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  const touched = (await stat(lock).catch(() => undefined))?.mtimeMs ?? Date.now()
  if (Date.now() - touched > SILENCE_MS) await rm(lock, { recursive: true, force: true })
  return false
}

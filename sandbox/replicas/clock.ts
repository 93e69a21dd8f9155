import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Folder, makeFolder } from '../processes.ts'

/** The wall clock of one process. It is correct until it is set. */
export interface ProcessClock {
  /** Arguments of node that install it. */
  readonly nodeArguments: string[]
  readonly env: Record<string, string>
  /** Sets it ahead by `offsetMs`, within 100 ms, also for later processes. */
  set(offsetMs: number): Promise<void>
  stop(): Promise<void>
}

const preloaded = join(import.meta.dirname, 'preloaded-clock.ts')

export async function makeClock(): Promise<ProcessClock> {
  const folder: Folder = await makeFolder('clock')
  const file = join(folder.path, 'offset')
  const set = async (offsetMs: number) => {
    await writeFile(`${file}.new`, String(offsetMs))
    await rename(`${file}.new`, file)
  }
  await set(0)
  return {
    nodeArguments: ['--import', preloaded],
    env: { CLOCK_OFFSET_FILE: file },
    set,
    stop: folder.remove,
  }
}

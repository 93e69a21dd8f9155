import { makeFolder } from './processes.ts'

/** Something that was started and can be stopped. */
export interface Part {
  stop(): Promise<void>
}

/** Parts that are started one after the other, and stopped in reverse order. */
export interface Parts extends Part {
  /**
   * Resolves when the part is started. From then on it is stopped with the others; a part that is
   * started after `stop` is stopped at once, and the call rejects.
   */
  begun<T extends Part>(part: Promise<T>): Promise<T>
  /** Makes a temporary folder as one of the parts; resolves with its path. */
  folder(purpose: string): Promise<string>
  /** Stops each part once, also where another one fails to stop; later calls wait for the first. */
  stop(): Promise<void>
}

/** Runs `start`. Where it fails, stops the parts that were started until then, and rejects. */
export async function startParts<T>(start: (parts: Parts) => Promise<T>): Promise<T> {
  const started: Part[] = []
  let stopping: Promise<void> | undefined
  const parts: Parts = {
    async begun(starting) {
      const part = await starting
      if (stopping !== undefined) {
        await part.stop()
        throw new Error('stopped before the start was complete')
      }
      started.push(part)
      return part
    },
    async folder(purpose) {
      const { path, remove } = await makeFolder(purpose)
      await parts.begun(Promise.resolve({ stop: remove }))
      return path
    },
    stop() {
      stopping ??= stopAll(started.reverse())
      return stopping
    },
  }
  try {
    return await start(parts)
  } catch (error) {
    await parts.stop().catch(problem => {
      throw new AggregateError([error, problem], (error as Error).message)
    })
    throw error
  }
}

/** Resolves when all have started. Where some fail, waits for the others, then rejects. */
export async function allStarted<T>(starting: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(starting)
  return Promise.all(starting)
}

async function stopAll(parts: Part[]): Promise<void> {
  const problems: unknown[] = []
  for (const part of parts) {
    try {
      await part.stop()
    } catch (error) {
      problems.push(error)
    }
  }
  if (problems.length === 1) throw problems[0]
  if (problems.length > 1) throw new AggregateError(problems, 'some parts did not stop')
}

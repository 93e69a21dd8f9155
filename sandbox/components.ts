import { makeFolder } from './processes.ts'

/** Something that was started and can be stopped. */
export interface Component {
  stop(): Promise<void>
}

/** Parts that are started one after the other, and stopped in reverse order. */
export interface Components extends Component {
  /**
   * Resolves when the part is started. From then on it is stopped with the others; a part that is
   * started after `stop` is stopped at once, and the call rejects.
   */
  begun<T extends Component>(component: Promise<T>): Promise<T>
  /** Makes a temporary folder as one of the parts; resolves with its path. */
  folder(purpose: string): Promise<string>
  /** Stops each part once, also where another one fails to stop; later calls wait for the first. */
  stop(): Promise<void>
}

/** Runs `start`. Where it fails, stops the parts that were started until then, and rejects. */
export async function startComponents<T>(
  start: (components: Components) => Promise<T>,
): Promise<T> {
  const started: Component[] = []
  let stopping: Promise<void> | undefined
  const components: Components = {
    async begun(starting) {
      const component = await starting
      if (stopping !== undefined) {
        await component.stop()
        throw new Error('stopped before the start was complete')
      }
      started.push(component)
      return component
    },
    async folder(purpose) {
      const { path, remove } = await makeFolder(purpose)
      await components.begun(Promise.resolve({ stop: remove }))
      return path
    },
    stop() {
      stopping ??= stopAll(started.reverse())
      return stopping
    },
  }
  try {
    return await start(components)
  } catch (error) {
    await components.stop().catch(problem => {
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

async function stopAll(components: Component[]): Promise<void> {
  const problems: unknown[] = []
  for (const component of components) {
    try {
      await component.stop()
    } catch (error) {
      problems.push(error)
    }
  }
  if (problems.length === 1) throw problems[0]
  if (problems.length > 1) throw new AggregateError(problems, 'some parts did not stop')
}

/** What was started and can be ended. */
export interface Part {
  stop(): Promise<void>
}

/** Parts that are started one after the other, and ended in the opposite order. */
export interface Parts extends Part {
  /** Resolves when the part is there; from then on it is ended with the others. */
  begun<T extends Part>(part: Promise<T>): Promise<T>
}

/** Runs `start`; where that fails, ends what had been started by then. */
export async function startParts<T>(start: (parts: Parts) => Promise<T>): Promise<T> {
  const started: Part[] = []
  const parts: Parts = {
    async begun(part) {
      started.unshift(await part)
      return part
    },
    async stop() {
      for (const part of started.splice(0)) await part.stop()
    },
  }
  try {
    return await start(parts)
  } catch (error) {
    await parts.stop()
    throw error
  }
}

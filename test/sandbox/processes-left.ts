import { run, waitFor } from '../../sandbox/processes.ts'

/**
 * The command lines that contain the text, after up to 5 s in which they may end: the reaper runs a
 * short `grep` with the name of each folder that was removed.
 */
export async function processesLeft(text: string): Promise<string[]> {
  let left: string[] = []
  const look = async () => {
    const { stdout } = await run({ command: 'ps', args: ['-eo', 'args'] })
    left = stdout.split('\n').filter(line => line.includes(text))
    return left.length === 0
  }
  await waitFor(look, { withinMs: 5000, what: 'processes to end' }).catch(() => {})
  return left
}

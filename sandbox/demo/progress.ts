import { styleText } from 'node:util'

/** Prints every two seconds what the demo waits for, until `work` is done. */
export async function showProgress<T>(what: string, work: () => Promise<T>): Promise<T> {
  const begun = performance.now()
  const seconds = () => `${Math.round((performance.now() - begun) / 1000)} s`
  const timer = setInterval(() => say(`${what} ... ${seconds()}`), 2000)
  try {
    return await work()
  } finally {
    clearInterval(timer)
  }
}

/** Prints a line that is not a statement of the demo. */
export function say(line: string): void {
  console.log(styleText('dim', `  ${line}`))
}

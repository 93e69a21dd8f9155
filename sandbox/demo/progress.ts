import { styleText } from 'node:util'

/** Says what is being waited for, and goes on saying so every two seconds until it is there. */
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

/** A line beside the story. */
export function say(line: string): void {
  console.log(styleText('dim', `  ${line}`))
}

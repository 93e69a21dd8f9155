import { stripVTControlCharacters, styleText } from 'node:util'

/** Something that a person waits for. */
export interface Progress {
  /** Says what the work does now. */
  now(what: string): void
  stop(): void
}

const { stderr } = process
const terminal = stderr.isTTY === true
/** What is waited for at the moment; the last one is shown. */
const current: { text: string; begin: number }[] = []

/**
 * Shows what the work does: in a terminal, one line with the seconds, which is rewritten in place
 * and disappears at the end; otherwise, one line for each `what`.
 */
export function startProgress(what: string): Progress {
  const wait = { text: what, begin: performance.now() }
  current.push(wait)
  announce(what)
  const timer = setInterval(draw, 1000)
  return {
    now(next) {
      wait.text = next
      announce(next)
    },
    stop() {
      clearInterval(timer)
      erase()
      current.splice(current.indexOf(wait), 1)
      draw()
    },
  }
}

/** Shows `what` until `work` is done. For short work: without a terminal, it prints nothing. */
export async function showProgress<T>(what: string, work: () => Promise<T>): Promise<T> {
  if (!terminal) return work()
  const progress = startProgress(what)
  try {
    return await work()
  } finally {
    progress.stop()
  }
}

/** Prints lines above the line of progress. */
export function print(text: string): void {
  erase()
  console.log(text)
  draw()
}

/** Prints a line that is not a statement of the demo. */
export const say = (line: string): void => print(styleText('dim', `  ${line}`))

/** Breaks a text between words, into lines of at most 99 columns that begin with `indent` after the first. */
export function wrap(text: string, indent = ''): string {
  const lines = ['']
  for (const word of text.match(/\s*\S+/g) ?? []) {
    const line = lines.at(-1) ?? ''
    const fits = stripVTControlCharacters(line + word).length < 100
    if (fits || line.trim() === '') lines[lines.length - 1] = line + word
    else lines.push(indent + word.trim())
  }
  return lines.join('\n')
}

function announce(what: string): void {
  if (terminal) draw()
  else stderr.write(`${what} ...\n`)
}

function draw(): void {
  const wait = current.at(-1)
  if (!terminal || wait === undefined) return
  const line = wrap(`${wait.text} ... ${secondsOf(wait)} s`)
  const [first = ''] = line.split('\n')
  erase()
  stderr.write(styleText('dim', first.slice(0, stderr.columns - 1)))
}

function erase(): void {
  if (terminal && current.length > 0) stderr.write('\r\x1b[2K')
}

function secondsOf({ begin }: { begin: number }): number {
  return Math.round((performance.now() - begin) / 1000)
}

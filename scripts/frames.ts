/**
 * Translates stack traces in a log: `npm run frames < log`. A frame (`pullpass.mjs:12:345`) is replaced
 * by the file and line of the source. This needs the source map that `npm run bundle` creates from the
 * same commit.
 */
import { readFileSync } from 'node:fs'
import { SourceMap } from 'node:module'
import { createInterface } from 'node:readline'

const FRAME = /[^\s("]*pullpass\.m?js:(\d+):(\d+)/g

/** The text with every frame of the program replaced by file:line of the source. */
export function withSourceLines(text: string, map: SourceMap): string {
  return text.replace(FRAME, (frame, line, column) => {
    const entry = map.findEntry(Number(line) - 1, Number(column) - 1)
    if (!('originalSource' in entry)) return frame
    return `${entry.originalSource.replace(/^(\.\.\/)+/, '')}:${entry.originalLine + 1}`
  })
}

/** The source map beside a bundle. */
export function readSourceMap(file: string): SourceMap {
  return new SourceMap(JSON.parse(readFileSync(file, 'utf8')))
}

if (import.meta.main) {
  const map = readSourceMap('dist/pullpass.js.map')
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(withSourceLines(line, map))
  }
}

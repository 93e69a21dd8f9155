/**
 * Names the lines of the source in what the program wrote: `npm run frames < log`. The frames of a
 * stack (`pullpass.mjs:12:345`) get the file and line of the source, by the map that
 * `npm run bundle` makes of the same commit.
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

/** The map that stands beside a bundle. */
export function readSourceMap(file: string): SourceMap {
  return new SourceMap(JSON.parse(readFileSync(file, 'utf8')))
}

if (import.meta.main) {
  const map = readSourceMap('dist/pullpass.js.map')
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(withSourceLines(line, map))
  }
}

import { JSONParser } from '@streamparser/json'
import type { ListedToken } from '../issuer/issuer.ts'
import { record } from './http/answer.ts'
import { listedToken } from './tokens.ts'

export interface ListReader {
  /** False: the list is unreadable, and the rest of it need not be read. */
  write(chunk: Uint8Array): boolean
  /** Whether all of the list was read. */
  isComplete(): boolean
}

/** More bytes than this without the end of a row are no list. */
const mostRowBytes = 1024 * 1024

/*
 * What a body means; rows are passed on before that is known:
 *
 * | body                                              | the list is                              |
 * |---------------------------------------------------|------------------------------------------|
 * | {"tokens": [row, ...]}                            | complete                                 |
 * | {"tokens": null}                                  | complete and empty (so Go writes it)     |
 * | the same with "next" or "next_url" that is set    | cut short: one page of several           |
 * | cut off, no JSON, no "tokens", or another shape   | unreadable                               |
 */
export function createListReader(row: (token: ListedToken) => void): ListReader {
  const parser = new JSONParser({ paths: ['$.tokens.*', '$.*'] })
  let hasTokens = false
  let isUnreadable = false
  let bytesOfRow = 0
  const readField = (key: unknown, value: unknown) => {
    if (key === 'tokens') hasTokens = value === null || Array.isArray(value)
    if (isNextPage(key, value) || (key === 'tokens' && !hasTokens)) isUnreadable = true
  }
  parser.onValue = ({ key, value, parent, stack }) => {
    bytesOfRow = 0
    if (stack.length === 1) return readField(key, value)
    readRow(value, row)
    // The parser keeps all rows until the array ends.
    if (Array.isArray(parent)) parent[Number(key)] = null
    else isUnreadable = true
  }
  const parse = (chunk: Uint8Array) => {
    try {
      parser.write(chunk)
    } catch {
      isUnreadable = true
    }
  }
  return {
    write: chunk => {
      bytesOfRow += chunk.length
      if (bytesOfRow > mostRowBytes + chunk.length) isUnreadable = true
      if (!isUnreadable) parse(chunk)
      return !isUnreadable
    },
    isComplete: () => hasTokens && parser.isEnded && !isUnreadable,
  }
}

function isNextPage(key: unknown, value: unknown): boolean {
  return (key === 'next' || key === 'next_url') && value !== null && value !== ''
}

/** A row without an id cannot be named to anybody. */
function readRow(value: unknown, row: (token: ListedToken) => void): void {
  const token = listedToken(record(value))
  if (token.id !== '') row(token)
}

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TokenError } from '../../issuer/issuer.ts'
import { environmentFailure } from '../http/answer.ts'

/** What to log in with. `digest` changes exactly when the content of a file does; never logged. */
export type Credentials = { digest: string } & (
  | { kind: 'api-key'; apiKey: string }
  | { kind: 'password'; username: string; password: string }
)

export interface CredentialFiles {
  /** Reads the files now. Rejects with `credentials_missing`, which names the file that lacks. */
  read(): Promise<Credentials>
  /** Why there are no credentials, as far as the last reading showed. */
  problem(): TokenError | undefined
  /** Told, with the new digest, when the content of a file has changed. */
  onChange(listener: (digest: string) => void): void
  start(): void
  stop(): void
}

const pollMs = 1000
const fileNames = ['api-key', 'username', 'password'] as const

/** Content by file name, without trailing line breaks; empty where there is no such file. */
type Contents = Record<(typeof fileNames)[number], string>

/**
 * The credential files of a directory: `api-key`, else `username` and `password`. Looked at every
 * second by content: a mounted Secret changes by swapping a symbolic link above the files, which
 * watching the files does not show.
 */
export function createCredentialFiles(directory: string): CredentialFiles {
  const listeners: ((digest: string) => void)[] = []
  let seen: string | undefined
  let problem: TokenError | undefined
  let timer: NodeJS.Timeout | undefined

  async function look(): Promise<Credentials | TokenError> {
    const contents = await readSettled(directory)
    const found = credentials(contents, directory)
    problem = found instanceof TokenError ? found : undefined
    const digest = digestOf(contents)
    const changed = seen !== undefined && seen !== digest
    seen = digest
    if (changed) for (const listener of listeners) listener(digest)
    return found
  }

  return {
    read: async () => {
      const found = await look()
      if (found instanceof TokenError) throw found
      return found
    },
    problem: () => problem,
    onChange: listener => listeners.push(listener),
    start: () => {
      timer ??= setInterval(() => void look(), pollMs).unref()
      void look()
    },
    stop: () => clearInterval(timer),
  }
}

/** Two equal readings in a row: never a user name from before a change with a password after it. */
async function readSettled(directory: string): Promise<Contents> {
  let former = await readAll(directory)
  for (let tries = 0; tries < 5; tries++) {
    const contents = await readAll(directory)
    if (digestOf(contents) === digestOf(former)) return contents
    former = contents
  }
  return former
}

async function readAll(directory: string): Promise<Contents> {
  const read = async (name: string) => {
    const content = await readFile(join(directory, name), 'utf8').catch(() => '')
    return [name, content.replace(/[\r\n]+$/, '')]
  }
  return Object.fromEntries(await Promise.all(fileNames.map(read)))
}

function credentials(contents: Contents, directory: string): Credentials | TokenError {
  const digest = digestOf(contents)
  const { 'api-key': apiKey, username, password } = contents
  if (apiKey !== '') return { kind: 'api-key', apiKey, digest }
  if (username !== '' && password !== '') return { kind: 'password', username, password, digest }
  const half = username !== '' || password !== ''
  const lacking = half ? (username === '' ? 'username' : 'password') : 'api-key'
  const message = `cannot log in: ${join(directory, lacking)} is missing, empty or not readable`
  return environmentFailure('locked', 'credentials_missing', message)
}

function digestOf(contents: Contents): string {
  return createHash('sha256').update(JSON.stringify(contents)).digest('base64')
}

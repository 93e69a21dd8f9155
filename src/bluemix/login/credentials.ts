import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TokenError } from '../../issuer/issuer.ts'
import { environmentFailure } from '../http/answer.ts'

/** What to log in with. `digest` changes exactly when one of these texts does; never logged. */
export type Credentials = { digest: string } & (
  | { kind: 'api-key'; apiKey: string }
  | { kind: 'password'; username: string; password: string }
)

export interface CredentialFiles {
  /**
   * Reads the files now. Rejects with `credentials_missing` or `credentials_unusable`, which name
   * the file.
   */
  read(): Promise<Credentials>
  /** Why there are no credentials, as far as the last reading showed. */
  problem(): TokenError | undefined
  /** Called with the new digest when the credentials have changed. */
  onChange(listener: (digest: string) => void): void
  start(): void
  stop(): void
}

const pollMs = 1000
const fileNames = ['api-key', 'username', 'password'] as const

/** Content by file name; empty where there is no such file. */
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
    const found = credentials(await readSettled(directory), directory)
    problem = found instanceof TokenError ? found : undefined
    const digest = found instanceof TokenError ? digestOf(found.message) : found.digest
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
    if (fileNames.every(name => contents[name] === former[name])) return contents
    former = contents
  }
  return former
}

async function readAll(directory: string): Promise<Contents> {
  const read = (name: string) => readFile(join(directory, name), 'utf8').catch(() => '')
  const [apiKey, username, password] = await Promise.all(fileNames.map(read))
  return { 'api-key': apiKey ?? '', username: username ?? '', password: password ?? '' }
}

function credentials(contents: Contents, directory: string): Credentials | TokenError {
  const apiKey = apiKeyIn(contents['api-key'])
  if (apiKey === '') return passwordCredentials(contents, directory)
  const problem = problemOfKey(apiKey)
  if (problem !== undefined) return unusable(join(directory, 'api-key'), problem)
  return { kind: 'api-key', apiKey, digest: digestOf(['api-key', apiKey]) }
}

function passwordCredentials(contents: Contents, directory: string): Credentials | TokenError {
  const username = contents.username.trim()
  const password = withoutLineEnds(contents.password)
  if (username === '' || password === '') {
    const half = username === '' ? 'username' : 'password'
    return missing(join(directory, username === password ? 'api-key' : half))
  }
  if (/[\r\n]/.test(password)) return unusable(join(directory, 'password'), twoLines)
  return { kind: 'password', username, password, digest: digestOf([username, password]) }
}

/*
 * | file                                                | what is used                            |
 * |-----------------------------------------------------|-----------------------------------------|
 * | `api-key`: BOM, blanks, CR, LF around the key       | the key without them                    |
 * | `api-key`: JSON of `bx iam api-key-create --file`   | its field `apiKey` (later: `apikey`)    |
 * | `api-key`: quotes, two lines, other characters      | nothing: refused before a login is sent |
 * | `username`: BOM, blanks, CR, LF around the name     | the name without them                   |
 * | `password`: BOM before, CR, LF after it             | the password without them               |
 * | `password`: two lines                               | nothing: refused before a login is sent |
 */
function apiKeyIn(content: string): string {
  // A BOM is white space for `trim`.
  const text = content.trim()
  if (!text.startsWith('{')) return text
  try {
    const { apiKey, apikey } = JSON.parse(text) as Record<string, unknown>
    const found = apiKey ?? apikey
    return typeof found === 'string' ? found.trim() : text
  } catch {
    return text
  }
}

/** Blanks may belong to a password. */
function withoutLineEnds(text: string): string {
  return text.replace(/^\uFEFF/, '').replace(/[\r\n]+$/, '')
}

const twoLines = 'it has more than one line: write only the secret into the file'

/** Keys are base64url; other token characters pass, since other environments may use them. */
function problemOfKey(apiKey: string): string | undefined {
  if (/^[\w.~+/=-]+$/.test(apiKey)) return undefined
  if (apiKey.startsWith('{')) return 'it is JSON without a field apiKey'
  if (/[\0\uFFFD]/.test(apiKey)) return 'it is not UTF-8: save it as UTF-8'
  if (/[\r\n]/.test(apiKey)) return twoLines
  if (/^["'`].*["'`]$/.test(apiKey)) return 'it has quotes around the key: remove them'
  if (/\s/.test(apiKey)) return 'it has blanks in the key: write only the key into the file'
  return 'it has characters that no API key has: write only the key into the file'
}

function unusable(file: string, problem: string): TokenError {
  const message = `cannot log in: ${file} is not usable: ${problem}; next login when it changes`
  return environmentFailure('locked', 'credentials_unusable', message)
}

function missing(file: string): TokenError {
  const message = `cannot log in: ${file} is missing, empty or not readable; next login when it is there`
  return environmentFailure('locked', 'credentials_missing', message)
}

function digestOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64')
}

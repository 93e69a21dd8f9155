import { createHash } from 'node:crypto'
import { TokenError } from '../../registry-token/registry-token.ts'
import { environmentFailure } from '../http/failure.ts'
import { paused, pauseMs, quickTries } from './login-guard.ts'

/** A line of text that outlives this process and that all replicas share. */
export interface Note {
  /** Undefined where nothing was written yet. */
  read(): Promise<string | undefined>
  write(text: string): Promise<void>
}

export interface LoginMemory {
  /** Before each login. Rejects with a TokenError where it must not be tried, whoever tried before. */
  enter(digest: string): Promise<void>
  /** After it. `error`: how it failed. Never rejects. */
  leave(digest: string, error?: TokenError): Promise<void>
}

interface Remembered {
  credentials: string
  /** Logins begun of which no outcome is known, and when the last of them began (epoch ms). */
  unanswered: number
  at: number
  refused?: { code: string; message: string }
}

/** UAA counts failures for 1200 s and locks at the fifth (cloudfoundry/uaa oauth-endpoints.xml). */
const countedMs = 1_200_000

/**
 * What login-guard.ts knows of the logins of this process, this keeps for the next one: however
 * often a pullpass with a wrong key is restarted, the account is not locked.
 *
 * | noted of these credentials                      | the next login                     |
 * |-------------------------------------------------|------------------------------------|
 * | nothing, or other credentials                   | is tried                           |
 * | refused                                         | not before the credentials change  |
 * | three begun within 1200 s, no outcome known     | one in 10 minutes                  |
 *
 * A login is noted before it is made, since the process may not live to tell how it went.
 */
export function createLoginMemory(note: Note, now: () => number): LoginMemory {
  async function recall(digest: string): Promise<Remembered> {
    const found = parse(await note.read())
    const credentials = fingerprint(digest)
    if (found?.credentials !== credentials) return { credentials, unanswered: 0, at: 0 }
    return now() - found.at < countedMs ? found : { ...found, unanswered: 0 }
  }
  const write = (remembered: Remembered) => note.write(JSON.stringify(remembered))
  return {
    enter: async digest => {
      try {
        const before = await recall(digest)
        if (before.refused !== undefined) throw refusedBefore(before.refused)
        const again = before.at + pauseMs - now()
        if (before.unanswered >= quickTries && again > 0) throw paused(again)
        await write({ ...before, unanswered: before.unanswered + 1, at: now() })
      } catch (error) {
        throw error instanceof TokenError ? error : forgetful(error as Error)
      }
    },
    leave: async (digest, error) => {
      if (error?.code === 'timeout') return
      const refused = error?.kind === 'locked' && { code: error.code, message: error.message }
      // Where this fails, the login stays noted as one of unknown outcome: that is on the safe side.
      await recall(digest)
        .then(({ credentials, unanswered, at }) => {
          const left = error === undefined ? 0 : Math.max(0, unanswered - 1)
          return write({ credentials, unanswered: left, at, ...(refused && { refused }) })
        })
        .catch(() => {})
    },
  }
}

/**
 * Tells one credential from another and nothing about either: 16 bits are no help in guessing a
 * password. One in 65,536 new credentials is taken for the old one; deleting the note helps then.
 */
function fingerprint(digest: string): string {
  return createHash('sha256').update(`pullpass login ${digest}`).digest('hex').slice(0, 4)
}

function parse(text: string | undefined): Remembered | undefined {
  try {
    const found = JSON.parse(text ?? '') as Partial<Remembered> | null
    const whole = typeof found?.unanswered === 'number' && typeof found.at === 'number'
    return whole ? (found as Remembered) : undefined
  } catch {
    return undefined
  }
}

function refusedBefore({ code, message }: { code: string; message: string }): TokenError {
  return new TokenError(message, { kind: 'locked', scope: 'environment', code })
}

function forgetful({ message }: Error): TokenError {
  const text = `no login is tried while it cannot be noted: ${message}`
  return environmentFailure('transient', 'login_not_noted', text)
}

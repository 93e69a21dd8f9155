import { unwatchFile, watchFile } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Issuer, TokenError } from '../../../src/issuer/issuer.ts'

export interface FileIssuerSettings {
  /** A folder with one file per organization. The file holds a token, and its name is the organization. */
  directory: string
  /** Interval between checks of the folder for changes. */
  checkMs: number
}

/**
 * Issues tokens that an administrator wrote to files. All namespaces of an organization share its
 * token. It never expires, cannot be listed, and is revoked by the administrator.
 */
export function createFileIssuer({ directory, checkMs }: FileIssuerSettings): Issuer {
  const listeners: (() => void)[] = []
  const report = () => {
    for (const listener of listeners) listener()
  }
  return {
    start: () => void watchFile(directory, { interval: checkMs, persistent: false }, report),
    close: async () => unwatchFile(directory, report),
    problem: () => undefined,
    onCredentialChange: listener => void listeners.push(listener),
    mint: async ({ organization }) => {
      const text = await readToken(directory, organization)
      return { text, id: undefined, expiresAt: undefined }
    },
    list: async () => 'unsupported',
    text: async () => undefined,
    revoke: async () => {},
    accepts: async () => true,
  }
}

async function readToken(directory: string, organization: string): Promise<string> {
  try {
    return (await readFile(join(directory, organization), 'utf8')).trim()
  } catch {
    throw new TokenError(`there is no token file for organization "${organization}"`, {
      kind: 'permanent',
      scope: 'organization',
      code: 'organization_not_found',
    })
  }
}

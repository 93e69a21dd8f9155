import { randomUUID } from 'node:crypto'
import type { Note } from './organizations.ts'

/** The nonces of our marks, on the Lease: a mark with another nonce is somebody else's. */
export interface Nonces {
  /** All that may still be in a list. May reject with a KubernetesError. */
  load(): Promise<ReadonlySet<string>>
  /** A nonce for the next mark, on the Lease already; the same one until it is used. */
  next(organization: string): Promise<string>
  used(organization: string): void
  /** Another leader may have written meanwhile: read again before the next answer. */
  reload(): void
}

/** A mark lives 24 h; an hour more for one that was made late, and for clocks. */
const rememberMs = 25 * 3_600_000
/** A leader that restarts all the time must not fill the Lease. */
const most = 500

/** By nonce, when it was written. */
type Written = ReadonlyMap<string, number>

/**
 * The note is JSON: `{"<nonce>": "<when it was written>"}`. What this process wrote also counts after
 * etcd was restored to a state without it.
 */
export function createNonces({ note, now }: { note: Note; now: () => Date }): Nonces {
  let own: Written = new Map()
  let loading: Promise<Written> | undefined
  /** One write after the other, each of all nonces. */
  let writing = Promise.resolve()
  const unused = new Map<string, string>()
  const load = (): Promise<Written> => {
    loading ??= note.read().then(text => new Map([...parse(text), ...own]))
    return loading.catch(error => {
      loading = undefined
      throw error
    })
  }
  const add = async (nonce: string) => {
    // A clean-up beside the leader writes there too.
    loading = undefined
    const all = withNonce(await load(), nonce, now().getTime())
    await note.write(format(all))
    own = all
    loading = Promise.resolve(all)
  }
  return {
    load: async () => new Set((await load()).keys()),
    next: async organization => {
      const found = unused.get(organization)
      if (found !== undefined) return found
      const nonce = randomUUID()
      const write = writing.then(() => add(nonce))
      writing = write.catch(() => {})
      await write
      unused.set(organization, nonce)
      return nonce
    },
    used: organization => void unused.delete(organization),
    reload: () => {
      loading = undefined
    },
  }
}

function withNonce(written: Written, nonce: string, time: number): Written {
  const kept = [...written].filter(([, at]) => at > time - rememberMs).slice(1 - most)
  return new Map([...kept, [nonce, time]])
}

function format(written: Written): string {
  const entries = [...written].map(([nonce, at]) => [nonce, new Date(at).toISOString()])
  return JSON.stringify(Object.fromEntries(entries))
}

function parse(text: string | undefined): Written {
  try {
    const found: unknown = JSON.parse(text ?? '')
    const entries = Object.entries(typeof found === 'object' && found !== null ? found : {})
    return new Map(
      entries
        .map(([nonce, at]) => [nonce, Date.parse(String(at))] as const)
        .filter(([, at]) => !Number.isNaN(at)),
    )
  } catch {
    return new Map()
  }
}

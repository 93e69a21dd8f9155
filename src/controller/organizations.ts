import { KubernetesError } from '../kubernetes/client.ts'
import { namedOrganizations, type OrganizationRules } from './plan.ts'

/** A line of text that outlives this process and that all replicas share. */
export interface Note {
  /** Undefined where nothing was written yet. */
  read(): Promise<string | undefined>
  /** Rejects with a 409 where another process has changed the text since it was read. */
  write(text: string): Promise<void>
}

/**
 * The organizations that can hold tokens of this cluster: those of the settings, and those in which
 * an earlier leader minted, until a list shows no token of this cluster there. What a Secret says is
 * not among them. Every call may reject with a KubernetesError.
 */
export interface OrganizationsInUse {
  all(): Promise<Set<string>>
  /** Those of the settings. */
  named(): Iterable<string>
  /** Before a token is minted there. */
  remember(organization: string): Promise<void>
  /** A list shows no token of this cluster there. */
  forget(organization: string): Promise<void>
  /** Another leader may have written meanwhile: read again before the next answer. */
  reload(): void
}

/** Kept by the leader in a note on the Lease: a change of the settings still finds the old tokens. */
export function createOrganizationsInUse(rules: OrganizationRules, note: Note): OrganizationsInUse {
  const named = new Set(namedOrganizations(rules))
  const { load, change, reload } = createRemembered(note)
  return {
    reload,
    all: async () => new Set([...named, ...(await load())]),
    named: () => named,
    remember: async organization => {
      if ((await load()).has(organization)) return
      await change(remembered => remembered.size < remembered.add(organization).size)
    },
    forget: async organization => {
      if (named.has(organization) || !(await load()).has(organization)) return
      await change(remembered => remembered.delete(organization))
    },
  }
}

function createRemembered(note: Note) {
  let loading: Promise<Set<string>> | undefined
  const load = (): Promise<Set<string>> => {
    loading ??= note.read().then(parse)
    return loading.catch(error => {
      loading = undefined
      throw error
    })
  }
  /** One write after the other, each of the whole set. */
  let writing = Promise.resolve()
  const reload = () => {
    loading = undefined
  }
  type Apply = (remembered: Set<string>) => boolean
  const writeChanged = async (apply: Apply) => {
    const changed = new Set(await load())
    if (!apply(changed)) return
    await note.write(JSON.stringify([...changed].toSorted()))
    loading = Promise.resolve(changed)
  }
  /** `apply` returns false where it changes nothing. */
  const change = async (apply: Apply) => {
    const write = writing
      .then(() => writeChanged(apply))
      .catch(error => {
        if (!(error instanceof KubernetesError) || error.status !== 409) throw error
        // Another process has written meanwhile: once more, on what it wrote.
        reload()
        return writeChanged(apply)
      })
    writing = write.catch(() => {})
    await write
  }
  return { load, change, reload }
}

function parse(text: string | undefined): Set<string> {
  try {
    const found: unknown = JSON.parse(text ?? '')
    const names = Array.isArray(found) ? found : []
    return new Set(names.filter((name): name is string => typeof name === 'string'))
  } catch {
    return new Set()
  }
}

import { chooseOrganization, namedOrganizations, type OrganizationRules } from './plan.ts'

/** A line of text that outlives this process and that all replicas share. */
export interface Note {
  /** Undefined where nothing was written yet. */
  read(): Promise<string | undefined>
  write(text: string): Promise<void>
}

/**
 * The organizations that can hold tokens of this cluster: those of the settings, and those in which
 * an earlier leader minted, until a list shows no token of this cluster there. What a Secret says is
 * not among them. Every call may reject with a KubernetesError.
 */
export interface OrganizationsInUse {
  all(): Promise<Set<string>>
  /** Whether tokens of the namespace can be in this organization. */
  mayHold(namespace: string, organization: string): Promise<boolean>
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
    mayHold: async (namespace, organization) => {
      if (!('refused' in chooseOrganization(namespace, organization, rules))) return true
      return !named.has(organization) && (await load()).has(organization)
    },
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
  /** `apply` returns false where it changes nothing. */
  const change = async (apply: (remembered: Set<string>) => boolean) => {
    const write = writing.then(async () => {
      const changed = new Set(await load())
      if (!apply(changed)) return
      await note.write(JSON.stringify([...changed].toSorted()))
      loading = Promise.resolve(changed)
    })
    writing = write.catch(() => {})
    await write
  }
  const reload = () => {
    loading = undefined
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

import { PatchStrategy, setHeaderOptions } from '@kubernetes/client-node'
import { asKubernetesError, type KubernetesClient } from '../../kubernetes/client.ts'
import { CertificateError } from '../certificate.ts'
import type { Authority } from './authority.ts'
import { authoritySecret, readAuthority } from './authority-secret.ts'

/** An authority as it was read, in exactly this version of its Secret. */
export interface StoredAuthority {
  authority: Authority
  uid: string | undefined
  resourceVersion: string | undefined
}

/** Reads and writes the Secret of the authority. Every call rejects with a KubernetesError. */
export interface AuthorityStore {
  /** undefined: there is none. Rejects with a CertificateError where the Secret holds no CA. */
  read(): Promise<StoredAuthority | undefined>
  /** false: there is one by now, and it was left alone. */
  create(authority: Authority): Promise<boolean>
  /** false: it is not any more what was `stored`, and was left alone. */
  replace(stored: StoredAuthority, authority: Authority): Promise<boolean>
}

/**
 * Made by server-side apply, since a role cannot limit a POST to one name
 * (kubernetes/kubernetes#132213). Each replica (`identity`) applies as a field manager of its own
 * and without force: over what another has made, that is a 409.
 */
export function createAuthorityStore(options: {
  client: Pick<KubernetesClient, 'core'>
  namespace: string
  secretName: string
  identity: string
}): AuthorityStore {
  const { client, namespace, secretName: name, identity } = options
  const title = `Secret ${namespace}/${name}`
  const fieldManager = `pullpass-ca-${identity}`.slice(0, 128)
  return {
    async read() {
      const secret = await client.core.readNamespacedSecret({ namespace, name }).catch(error => {
        const failure = asKubernetesError(`read ${title}`, error)
        if (failure.status === 404) return undefined
        throw failure
      })
      if (!secret) return undefined
      const { uid, resourceVersion } = secret.metadata ?? {}
      return { authority: named(title, () => readAuthority(secret)), uid, resourceVersion }
    },
    create(authority) {
      const body = authoritySecret(authority, { namespace, name })
      const applied = client.core.patchNamespacedSecret(
        { namespace, name, body, fieldManager, force: false },
        setHeaderOptions('Content-Type', PatchStrategy.ServerSideApply),
      )
      return wasFirst(`create ${title}`, applied)
    },
    replace({ uid, resourceVersion }, authority) {
      const version = { ...(uid && { uid }), ...(resourceVersion && { resourceVersion }) }
      const body = authoritySecret(authority, { namespace, name, ...version })
      const replaced = client.core.replaceNamespacedSecret({ namespace, name, body })
      return wasFirst(`update ${title}`, replaced)
    },
  }
}

function named<T>(title: string, deed: () => T): T {
  try {
    return deed()
  } catch (error) {
    throw new CertificateError(`${title} holds no CA: ${(error as Error).message}`)
  }
}

async function wasFirst(action: string, written: Promise<unknown>): Promise<boolean> {
  try {
    await written
    return true
  } catch (error) {
    const failure = asKubernetesError(action, error)
    if (failure.status === 409) return false
    throw failure
  }
}

import { PatchStrategy, setHeaderOptions, type V1Secret } from '@kubernetes/client-node'
import { asKubernetesError, type KubernetesClient } from '../../kubernetes/client.ts'
import { CertificateError, type KeyPair } from '../certificate.ts'
import type { Authority } from './authority.ts'
import { authoritySecret, readAuthority, readSigning } from './authority-secret.ts'

/** What was read, in exactly this version of the Secret. */
export type StoredAuthority = SecretVersion & { authority: Authority }

/** A Secret that holds no authority. */
export type DamagedAuthority = SecretVersion & {
  authority: undefined
  damage: CertificateError
  /** The CA that signs, where that part can be read. */
  signing: KeyPair | undefined
}

interface SecretVersion {
  uid: string | undefined
  resourceVersion: string | undefined
  type: string | undefined
}

/** Reads and writes the Secret of the authority. Every call rejects with a KubernetesError. */
export interface AuthorityStore {
  /** undefined: there is none. */
  read(): Promise<StoredAuthority | DamagedAuthority | undefined>
  /** false: there is one by now, and it was left alone. */
  create(authority: Authority): Promise<boolean>
  /** false: it is not any more what was `stored`, and was left alone. */
  replace(stored: SecretVersion, authority: Authority): Promise<boolean>
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
      return { ...authorityIn(secret, title), uid, resourceVersion, type: secret.type }
    },
    create(authority) {
      const body = authoritySecret(authority, { namespace, name })
      const applied = client.core.patchNamespacedSecret(
        { namespace, name, body, fieldManager, force: false },
        setHeaderOptions('Content-Type', PatchStrategy.ServerSideApply),
      )
      return wasFirst(`create ${title}`, applied)
    },
    replace({ uid, resourceVersion, type }, authority) {
      const version = { ...(uid && { uid }), ...(resourceVersion && { resourceVersion }) }
      const body = authoritySecret(authority, { namespace, name, ...version }, type)
      const replaced = client.core.replaceNamespacedSecret({ namespace, name, body })
      return wasFirst(`update ${title}`, replaced)
    },
  }
}

function authorityIn(secret: V1Secret, title: string) {
  try {
    return { authority: readAuthority(secret) }
  } catch (error) {
    const damage = new CertificateError(`${title} holds no CA: ${(error as Error).message}`)
    return { authority: undefined, damage, signing: readSigning(secret) }
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

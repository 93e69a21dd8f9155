import {
  PatchStrategy,
  setHeaderOptions,
  type V1Namespace,
  type V1Secret,
} from '@kubernetes/client-node'
import { asKubernetesError, type KubernetesClient, KubernetesError } from '../kubernetes/client.ts'
import { manager, type PullSecret } from './pull-secret.ts'

/** Reads and writes the one Secret per namespace. Every call rejects with a KubernetesError. */
export interface SecretStore {
  /** The namespace as it is now, not as a watch saw it; undefined: there is none. */
  readNamespace(name: string): Promise<V1Namespace | undefined>
  read(namespace: string): Promise<V1Secret | undefined>
  /** Writes the whole Secret. `over` is the one of ours that it replaces, in exactly that version. */
  apply(secret: V1Secret, over: PullSecret | undefined): Promise<V1Secret>
  /** Deletes the Secret in exactly this version; one that is gone already is fine. */
  remove(secret: PullSecret): Promise<void>
}

/**
 * By server-side apply, for two reasons: a role can then allow `create` for the one name only (a
 * POST cannot be limited so: kubernetes/kubernetes#132213), and a Secret that somebody else made
 * is a 409 instead of a loss. `force` is set only over a Secret that carries our label, pinned to
 * the version we saw: this puts a hand-edited one right, and no other.
 */
export function createSecretStore(client: KubernetesClient, secretName: string): SecretStore {
  const name = secretName
  const at = (namespace: string) => `Secret ${namespace}/${name}`
  return {
    readNamespace: namespace =>
      orAbsent(`read Namespace ${namespace}`, client.core.readNamespace({ name: namespace })),
    read: namespace =>
      orAbsent(`read ${at(namespace)}`, client.core.readNamespacedSecret({ name, namespace })),
    apply: (secret, over) => {
      const namespace = secret.metadata?.namespace ?? ''
      const request = {
        name,
        namespace,
        body: over === undefined ? secret : pinned(secret, over),
        fieldManager: manager,
        force: over !== undefined,
      }
      return named(
        `apply ${at(namespace)}`,
        client.core.patchNamespacedSecret(
          request,
          setHeaderOptions('Content-Type', PatchStrategy.ServerSideApply),
        ),
      )
    },
    remove: async ({ namespace, uid, resourceVersion }) => {
      const body = { preconditions: { uid, resourceVersion } }
      await orAbsent(
        `delete ${at(namespace)}`,
        client.core.deleteNamespacedSecret({ name, namespace, body }),
      )
    },
  }
}

/** What a failed write means. */
export type WriteFailure = 'foreign' | 'gone' | 'forbidden' | 'transient'

/**
 * | answer                                                  | meaning                                |
 * |---------------------------------------------------------|----------------------------------------|
 * | 409 with a FieldManagerConflict                         | foreign: somebody else's Secret        |
 * | 404, or 403 caused by NamespaceTerminating              | gone: nothing to do any more           |
 * | other 403; 422 (an immutable Secret of ours)            | forbidden: a person has to act         |
 * | else (409 of a newer version, 429, 5xx, no answer)      | transient: look again                  |
 */
export function writeFailure(error: KubernetesError): WriteFailure {
  if (error.status === 409 && error.causes.includes('FieldManagerConflict')) return 'foreign'
  if (error.status === 404 || error.causes.includes('NamespaceTerminating')) return 'gone'
  return error.status === 403 || error.status === 422 ? 'forbidden' : 'transient'
}

function pinned(secret: V1Secret, { uid, resourceVersion }: PullSecret): V1Secret {
  return { ...secret, metadata: { ...secret.metadata, uid, resourceVersion } }
}

async function named<T>(action: string, answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    throw asKubernetesError(action, error)
  }
}

async function orAbsent<T>(action: string, answer: Promise<T>): Promise<T | undefined> {
  try {
    return await named(action, answer)
  } catch (error) {
    if (error instanceof KubernetesError && error.status === 404) return undefined
    throw error
  }
}

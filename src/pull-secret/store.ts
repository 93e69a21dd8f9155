import type { V1Namespace, V1Secret } from '@kubernetes/client-node'
import {
  asKubernetesError,
  type KubernetesClient,
  KubernetesError,
  serverSideApply,
  unlessStatus,
  wordsOf,
} from '../kubernetes/client.ts'
import { manager, type PullSecret } from './pull-secret.ts'

/** Reads and writes the one Secret per namespace. Every call rejects with a KubernetesError. */
export interface SecretStore {
  /** The namespace as it is now, not as a watch saw it; undefined: there is none. */
  readNamespace(name: string): Promise<V1Namespace | undefined>
  read(namespace: string): Promise<V1Secret | undefined>
  /**
   * Writes the whole Secret. `over` is the one that it replaces, in exactly that version. Fields that
   * another manager set are overwritten only where that one carries our label.
   */
  apply(secret: V1Secret, over: PullSecret | undefined): Promise<V1Secret>
  /**
   * Whether the API server would take this Secret in the place of `over`: a dry run, which changes
   * nothing. `secret` holds no credential. Rejects with the words of a quota or policy that refuses.
   */
  check(secret: V1Secret, over: PullSecret | undefined): Promise<void>
  /** Deletes the Secret in exactly this version; one that is gone already is fine. */
  remove(secret: PullSecret): Promise<void>
}

/**
 * By server-side apply, for two reasons: a role can then allow `create` for the one name only (a
 * POST cannot be limited so: kubernetes/kubernetes#132213), and a Secret that somebody else made
 * is a 409 instead of a loss. `force` is set only over a Secret that carries our label, pinned to
 * the version we saw: this repairs a hand-edited one, and no other.
 */
export function createSecretStore(client: KubernetesClient, secretName: string): SecretStore {
  const name = secretName
  const at = (namespace: string) => `Secret ${namespace}/${name}`
  const read = (namespace: string) =>
    unlessStatus(
      [404],
      `read ${at(namespace)}`,
      client.core.readNamespacedSecret({ name, namespace }),
    )
  const apply = createApply(client, name)
  const check = createCheck(client, name)
  return {
    readNamespace: namespace =>
      unlessStatus(
        [404],
        `read Namespace ${namespace}`,
        client.core.readNamespace({ name: namespace }),
      ),
    read,
    apply: async (secret, over) => {
      try {
        return await apply(secret, over, {})
      } catch (error) {
        const failure = asKubernetesError(`apply ${at(namespaceOf(secret))}`, error)
        // Its own words could quote the credential that it was to store.
        if (isWorded(failure)) await check(withoutCredential(secret), over)
        throw failure
      }
    },
    check,
    remove: createRemove(client, name),
  }
}

function createRemove({ core }: KubernetesClient, name: string): SecretStore['remove'] {
  return async ({ namespace, uid, resourceVersion }) => {
    const body = { preconditions: { uid, resourceVersion } }
    try {
      await core.deleteNamespacedSecret({ name, namespace, body })
    } catch (error) {
      const failure = asKubernetesError(`delete Secret ${namespace}/${name}`, error)
      if (failure.status === 404) return
      throw await withWords(failure, error, async () => true)
    }
  }
}

function createApply({ core }: KubernetesClient, name: string) {
  return (secret: V1Secret, over: PullSecret | undefined, options: { dryRun?: string }) => {
    const request = {
      name,
      namespace: secret.metadata?.namespace ?? '',
      body: over === undefined ? secret : pinned(secret, over),
      fieldManager: manager,
      force: over?.ours === true,
      ...options,
    }
    return core.patchNamespacedSecret(request, serverSideApply())
  }
}

function createCheck(client: KubernetesClient, name: string): SecretStore['check'] {
  const apply = createApply(client, name)
  return async (secret, over) => {
    try {
      await apply(secret, over, { dryRun: 'All' })
    } catch (error) {
      if (isDryRunUnsupported(error)) return
      const namespace = namespaceOf(secret)
      const id = `Secret ${namespace}/${name}`
      const read = () => client.core.readNamespacedSecret({ name, namespace })
      const exists = async () =>
        over !== undefined || (await unlessStatus([404], `read ${id}`, read())) !== undefined
      throw await withWords(asKubernetesError(`apply ${id}`, error), error, exists)
    }
  }
}

/** A webhook in the way takes no dry runs; what it says to the real write is not known. */
function isDryRunUnsupported(error: unknown): boolean {
  const { status } = asKubernetesError('', error)
  return status === 400 && /does not support dry run/i.test(wordsOf(error))
}

/** The failure, with the words of the quota, policy or webhook that refused. */
async function withWords(
  failure: KubernetesError,
  error: unknown,
  exists: () => Promise<boolean>,
): Promise<KubernetesError> {
  const words = wordsOf(error)
  if (!isWorded(failure) || words === '') return failure
  const text = refusalText(words, await exists())
  const isRefused = writeFailure(failure) === 'refused'
  const message = isRefused ? `refused: ${text}` : `${failure.message}: ${text}`
  const { status, reason, causes, retryAfterMs, grant } = failure
  return new KubernetesError(message, { status, reason, causes, retryAfterMs, grant })
}

/** A quota, a policy or a webhook that fails has given its reason. */
function isWorded(failure: KubernetesError): boolean {
  return writeFailure(failure) === 'refused' || (failure.status ?? 0) >= 500
}

/** Stands for the credential. */
function withoutCredential(secret: V1Secret): V1Secret {
  const empty = Buffer.from('{"auths":{}}').toString('base64')
  const data = Object.keys(secret.data ?? {}).map(key => [key, empty])
  return { ...secret, data: Object.fromEntries(data) }
}

function namespaceOf({ metadata }: V1Secret): string {
  return metadata?.namespace ?? ''
}

const longestRefusal = 300

/**
 * The words of a quota or policy as they may be shown. Where a Secret exists, they may quote it: no
 * run of characters is left in which a credential could stand.
 */
export function refusalText(words: string, exists: boolean): string {
  const clean = exists ? words.replace(/[A-Za-z0-9+/=_-]{24,}/g, '[redacted]') : words
  const line = clean
    .replace(/[\s\p{Cc}]+/gu, ' ')
    .replace(/^ ?[\w.]+ "[^"]*" is (?:forbidden|invalid): /, '')
    .trim()
  return line.length <= longestRefusal ? line : `${line.slice(0, longestRefusal - 1)}…`
}

/** What a failed write means. */
type WriteFailure = 'not_managed' | 'gone' | 'forbidden' | 'refused' | 'transient'

/**
 * | answer                                              | meaning                               |
 * |-----------------------------------------------------|---------------------------------------|
 * | 409 with a FieldManagerConflict                     | not_managed: somebody else's Secret   |
 * | 404, or 403 caused by NamespaceTerminating          | gone: nothing to do any more          |
 * | 403 of the authorizer                               | forbidden: the platform has to act    |
 * | other 403 (quota, policy); 422 (invalid, immutable) | refused: the namespace's owner has to |
 * | else (409 of a newer version, 429, 5xx, no answer)  | transient: look again                 |
 */
export function writeFailure(error: KubernetesError): WriteFailure {
  if (error.status === 409 && error.causes.includes('FieldManagerConflict')) return 'not_managed'
  if (error.status === 404 || error.causes.includes('NamespaceTerminating')) return 'gone'
  if (error.grant !== undefined) return 'forbidden'
  return error.status === 403 || error.status === 422 ? 'refused' : 'transient'
}

function pinned(secret: V1Secret, { uid, resourceVersion }: PullSecret): V1Secret {
  return { ...secret, metadata: { ...secret.metadata, uid, resourceVersion } }
}

import { EventEmitter } from 'node:events'
import type { V1Namespace, V1Secret, V1ServiceAccount } from '@kubernetes/client-node'
import { createObjectTable, type ObjectTable } from '../kubernetes/object-table.ts'
import type { OptedInNamespace } from './plan.ts'
import { type PullSecret, type PullSecretRules, readPullSecret } from './pull-secret.ts'

export const optInLabel = 'pullpass.io/inject'
const organizationAnnotation = 'pullpass.io/organization'
const enforceAnnotation = 'kubernetes.io/enforce-mountable-secrets'

export interface PullSecretIndex {
  /** Fed by the watches, and by answers to reads and writes of our own. */
  namespaces: ObjectTable<V1Namespace, OptedInNamespace>
  secrets: ObjectTable<V1Secret, PullSecret>
  /** Only ServiceAccounts that limit their pods' Secrets are kept: the names that they allow. */
  serviceAccounts: ObjectTable<V1ServiceAccount, readonly string[]>
  /** Every namespace that is opted in or holds a Secret of our name. */
  names(): Set<string>
  /** True as soon as the namespace's Secret can be named, false when `signal` ends. Never rejects. */
  whenUsable(namespace: string, signal: AbortSignal): Promise<boolean>
  /** `gone` is the Secret as it was, where the change is that it is not there any more. */
  onChange(listener: (namespace: string, gone: PullSecret | undefined) => void): void
}

/** What the API server holds, as far as admission and keeper need it; keyed by namespace. */
export function createPullSecretIndex(rules: PullSecretRules): PullSecretIndex {
  const events = new EventEmitter<{ change: [string, PullSecret | undefined] }>()
  events.setMaxListeners(0)
  const namespaces = createObjectTable({
    key: (namespace: V1Namespace) => namespace.metadata?.name ?? '',
    read: readNamespace,
    changed: name => events.emit('change', name, undefined),
  })
  const secrets = createObjectTable({
    key: (secret: V1Secret) => secret.metadata?.namespace ?? '',
    read: secret => readPullSecret(secret, rules),
    changed: (namespace, before, after) =>
      events.emit('change', namespace, after === undefined ? before : undefined),
  })
  const serviceAccounts = createObjectTable({
    key: ({ metadata }: V1ServiceAccount) => `${metadata?.namespace}/${metadata?.name}`,
    read: readMountableSecrets,
  })
  return {
    namespaces,
    secrets,
    serviceAccounts,
    names: () => new Set([...namespaces.keys(), ...secrets.keys()]),
    onChange: listener => events.on('change', listener),
    whenUsable: (namespace, signal) =>
      waitUntil(() => isUsable(secrets.get(namespace)), events, signal),
  }
}

/** Whether pods can do with this Secret: a foreign one is its owner's business, and left alone. */
export function isUsable(secret: PullSecret | undefined): boolean {
  return secret !== undefined && (secret.wellFormed || !secret.ours)
}

/** Opted in or not, as the label on a namespace says it. */
export function readNamespace({ metadata, status }: V1Namespace): OptedInNamespace | undefined {
  if (metadata?.labels?.[optInLabel] !== 'enabled') return undefined
  return {
    name: metadata.name ?? '',
    uid: metadata.uid ?? '',
    terminating: metadata.deletionTimestamp !== undefined || status?.phase === 'Terminating',
    organization: metadata.annotations?.[organizationAnnotation],
  }
}

/**
 * A pod that names a Secret outside this list is rejected (kubernetes
 * plugin/pkg/admission/serviceaccount, limitSecretReferences).
 */
function readMountableSecrets(account: V1ServiceAccount): readonly string[] | undefined {
  if (account.metadata?.annotations?.[enforceAnnotation] !== 'true') return undefined
  return (account.imagePullSecrets ?? []).flatMap(({ name }) => name ?? [])
}

function waitUntil(
  holds: () => boolean,
  events: EventEmitter<{ change: [string, PullSecret | undefined] }>,
  signal: AbortSignal,
): Promise<boolean> {
  return new Promise(resolve => {
    const look = () => {
      if (holds()) settle(true)
    }
    const giveUp = () => settle(false)
    const settle = (result: boolean) => {
      events.off('change', look)
      signal.removeEventListener('abort', giveUp)
      resolve(result)
    }
    events.on('change', look)
    signal.addEventListener('abort', giveUp)
    if (signal.aborted) giveUp()
    else look()
  })
}

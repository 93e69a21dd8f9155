import { EventEmitter } from 'node:events'
import type { V1Namespace, V1Secret, V1ServiceAccount } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { KubernetesClient } from '../kubernetes/client.ts'
import { createListWatch, type ListWatch } from '../kubernetes/list-watch.ts'
import { createObjectTable, type ObjectTable } from '../kubernetes/object-table.ts'
import { injectLabel, neverServedWith } from '../names.ts'
import { type PullSecret, type PullSecretRules, readPullSecret } from './pull-secret.ts'

const optInValues = new Set(['enabled', 'true'])
const organizationAnnotation = 'pullpass.io/organization'
const enforceAnnotation = 'kubernetes.io/enforce-mountable-secrets'

/** What is known of a namespace; undefined stands for one that is gone or not opted in. */
export interface OptedInNamespace {
  name: string
  uid: string
  terminating: boolean
  /** The organization it asks for by annotation. */
  organization: string | undefined
}

export interface PullSecretIndex {
  /** Fed by the watches, and by answers to reads and writes of our own. */
  namespaces: ObjectTable<V1Namespace, OptedInNamespace>
  /** Opted in or not, as the label on a namespace and the rules of this index say it. */
  readNamespace(namespace: V1Namespace): OptedInNamespace | undefined
  /** Namespaces whose label has no effect. */
  mislabelled(): Iterable<string>
  /** Why the label of a namespace has no effect, for people; undefined: it has, or there is none. */
  labelProblem(namespace: string): string | undefined
  secrets: ObjectTable<V1Secret, PullSecret>
  /**
   * Only ServiceAccounts that limit their pods' Secrets and do not list ours are kept, as an empty
   * list: what else they allow is not needed, and may be large.
   */
  serviceAccounts: ObjectTable<V1ServiceAccount, readonly string[]>
  /** Every namespace that is opted in or holds a Secret of our name. */
  names(): Set<string>
  /** True as soon as the namespace's Secret can be named, false when `signal` ends. Never rejects. */
  whenUsable(namespace: string, signal: AbortSignal): Promise<boolean>
  onChange(listener: (namespace: string) => void): void
}

/** What the API server holds, as far as admission and controller need it; keyed by namespace. */
export function createPullSecretIndex(
  rules: PullSecretRules,
  neverServed = neverServedWith(),
): PullSecretIndex {
  const events = new EventEmitter<{ change: [string] }>()
  events.setMaxListeners(0)
  const { namespaces, ...labels } = createNamespaceTable(neverServed, name =>
    events.emit('change', name),
  )
  const secrets = createObjectTable({
    key: (secret: V1Secret) => secret.metadata?.namespace ?? '',
    read: secret => readPullSecret(secret, rules),
    changed: namespace => events.emit('change', namespace),
  })
  const serviceAccounts = createObjectTable({
    key: ({ metadata }: V1ServiceAccount) => `${metadata?.namespace}/${metadata?.name}`,
    read: account => readMountableSecrets(account, rules.secretName),
  })
  return {
    namespaces,
    ...labels,
    secrets,
    serviceAccounts,
    names: () => new Set([...namespaces.keys(), ...secrets.keys()]),
    onChange: listener => events.on('change', listener),
    whenUsable: (namespace, signal) =>
      waitUntil(() => isUsable(secrets.get(namespace)), events, signal),
  }
}

/** Labelled namespaces in one table: those that are opted in, and those whose label has no effect. */
function createNamespaceTable(neverServed: ReadonlySet<string>, changed: (name: string) => void) {
  const labelled = createObjectTable({
    key: (namespace: V1Namespace) => namespace.metadata?.name ?? '',
    read: namespace => readLabel(namespace, neverServed),
    changed,
  })
  const get = (name: string) => optedIn(labelled.get(name))
  const labelProblem = (name: string) => {
    const found = labelled.get(name)
    return typeof found === 'string' ? found : undefined
  }
  const namesWhere = (holds: (name: string) => unknown) =>
    [...labelled.keys()].filter(name => holds(name) !== undefined).values()
  return {
    namespaces: { ...labelled, get, keys: () => namesWhere(get) },
    readNamespace: (namespace: V1Namespace) => optedIn(readLabel(namespace, neverServed)),
    mislabelled: () => namesWhere(labelProblem),
    labelProblem,
  }
}

function optedIn(label: OptedInNamespace | string | undefined): OptedInNamespace | undefined {
  return typeof label === 'object' ? label : undefined
}

/** Whether pods can use this Secret. One that pullpass does not manage is its owner's concern. */
export function isUsable(secret: PullSecret | undefined): boolean {
  return secret !== undefined && (secret.token !== undefined || !secret.ours)
}

/**
 * What the label on a namespace means.
 *
 * | label                         | namespace           | meaning                     |
 * |-------------------------------|---------------------|-----------------------------|
 * | none                          | any                 | undefined: not opted in     |
 * | any value                     | one of neverServed  | a text: it has no effect    |
 * | `enabled` or `true`           | else                | opted in                    |
 * | any other value               | else                | a text: it has no effect    |
 */
function readLabel(
  { metadata, status }: V1Namespace,
  neverServed: ReadonlySet<string>,
): OptedInNamespace | string | undefined {
  const value = metadata?.labels?.[injectLabel]
  if (value === undefined) return undefined
  const name = metadata?.name ?? ''
  if (neverServed.has(name)) {
    return `the label ${injectLabel} has no effect here: namespace ${name} is never served`
  }
  if (!optInValues.has(value)) {
    const quoted = JSON.stringify(value.slice(0, 100))
    return `the label ${injectLabel} has the value ${quoted}: only "enabled" and "true" opt in`
  }
  return {
    name,
    uid: metadata?.uid ?? '',
    terminating: metadata?.deletionTimestamp !== undefined || status?.phase === 'Terminating',
    organization: short(metadata?.annotations?.[organizationAnnotation]),
  }
}

/** What strconv.ParseBool takes for true, by which the API server reads the annotation. */
const goTrue = new Set(['1', 't', 'T', 'true', 'True', 'TRUE'])

/**
 * A pod that names a Secret outside this list is rejected (kubernetes
 * plugin/pkg/admission/serviceaccount, limitSecretReferences).
 */
function readMountableSecrets(
  { metadata, imagePullSecrets }: V1ServiceAccount,
  secretName: string,
): readonly string[] | undefined {
  const enforces = goTrue.has(metadata?.annotations?.[enforceAnnotation] ?? '')
  if (!enforces || imagePullSecrets?.some(({ name }) => name === secretName)) return undefined
  return none
}

const none: readonly string[] = []

/** A namespace's annotation may be 256 KiB long: it must not stay in memory. */
const longestText = 1000

/** A copy, where it is cut: a slice would keep the whole text in memory. */
function short(text: string | undefined): string | undefined {
  if (text === undefined || text.length <= longestText) return text
  return Buffer.from(text.slice(0, longestText)).toString()
}

function waitUntil(
  holds: () => boolean,
  events: EventEmitter<{ change: [string] }>,
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

/**
 * The three watches that keep the index true. Secrets are asked for by the one name, never by
 * label: that way a role can allow it for this name alone, in all namespaces (the API server takes
 * a `metadata.name` field selector for the name of the request: kubernetes/apiserver
 * pkg/endpoints/request/requestinfo.go), and no other Secret ever reaches this process.
 */
export function createWatches(
  { client, index, logger, metrics }: WatchDependencies,
  { secretName }: { secretName: string },
): ListWatch[] {
  return [
    createListWatch<V1Namespace>(
      { client, handler: index.namespaces, logger, metrics },
      { name: 'namespaces', path: '/api/v1/namespaces', query: { labelSelector: injectLabel } },
    ),
    createListWatch<V1Secret>(
      { client, handler: index.secrets, logger, metrics },
      {
        name: 'secrets',
        path: '/api/v1/secrets',
        query: { fieldSelector: `metadata.name=${secretName}` },
      },
    ),
    createListWatch<V1ServiceAccount>(
      { client, handler: index.serviceAccounts, logger, metrics },
      { name: 'serviceaccounts', path: '/api/v1/serviceaccounts', query: {} },
    ),
  ]
}

interface WatchDependencies {
  client: KubernetesClient
  index: PullSecretIndex
  logger: Logger
  metrics: Registry
}

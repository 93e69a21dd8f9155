import { PatchStrategy, setHeaderOptions } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { asKubernetesError, type KubernetesClient } from '../kubernetes/client.ts'
import type { ListWatchHandler } from '../kubernetes/list-pages.ts'
import { createListWatch } from '../kubernetes/list-watch.ts'
import { isTrusted } from './certificate.ts'

/** A MutatingWebhookConfiguration, as far as it is read. */
interface WebhookConfiguration {
  metadata?: { name?: string; uid?: string; resourceVersion?: string }
  webhooks?: { name: string; clientConfig?: { caBundle?: string; url?: string } }[]
}

export interface CaBundle {
  start(): void
  stop(): Promise<void>
  /** The configuration as it is; undefined while it was never read, or is not there. */
  configuration(): WebhookConfiguration | undefined
  /** Whether the configuration could be read, be it there or not. */
  known(): boolean
  /**
   * Whether every webhook of the configuration takes this certificate (PEM); yes where there is no
   * configuration. With `system`, also one that is called by a URL and names no CA: the API server
   * then asks its own roots, which nobody else knows.
   */
  trusts(cert: string, now: Date, roots?: 'system'): boolean
  /**
   * Puts `bundle` (PEM) into each webhook of `configuration` that holds another. The configuration
   * must have been taken before the bundle was made, so that an old bundle never replaces a newer
   * one: a write over another version than that is refused, and not tried again, since the change
   * is told to `onChange`. Rejects with a KubernetesError.
   */
  put(configuration: WebhookConfiguration | undefined, bundle: string): Promise<void>
  /** Called when the configuration was read, changed, or went. */
  onChange(listener: () => void): void
}

const PATH = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
const FIELD_MANAGER = 'pullpass-ca-bundle'

/** Watches the one configuration of that `name` and writes its caBundle. */
export function createCaBundle(options: {
  client: KubernetesClient
  name: string
  logger: Logger
  metrics?: Registry
}): CaBundle {
  const { client, name, logger } = options
  let seen: WebhookConfiguration | undefined
  const listeners: (() => void)[] = []
  const see = (configuration: WebhookConfiguration | undefined) => {
    seen = configuration
    for (const listener of listeners) listener()
  }
  const watch = createListWatch<WebhookConfiguration>({
    ...options,
    path: PATH,
    query: { fieldSelector: `metadata.name=${name}` },
    handler: handlerOf(see),
    name: 'webhook-configuration',
  })
  return {
    start: watch.start,
    stop: watch.stop,
    configuration: () => seen,
    known: watch.synced,
    trusts: (cert, now, roots) => {
      const named = roots === 'system' ? withoutSystemRoots(seen) : seen
      return watch.synced() && bundlesOf(named).every(one => isTrusted(cert, one, now))
    },
    async put(configuration, bundle) {
      if (bundlesOf(configuration).every(one => one === bundle)) return
      if (!(await written(client, withBundle(configuration ?? {}, name, bundle)))) return
      logger.info({ configuration: name }, 'caBundle written')
    },
    onChange: listener => void listeners.push(listener),
  }
}

function handlerOf(
  see: (configuration: WebhookConfiguration | undefined) => void,
): ListWatchHandler<WebhookConfiguration> {
  return {
    replace: () => {
      let listed: WebhookConfiguration | undefined
      return {
        add: item => {
          listed = item
        },
        complete: () => see(listed),
      }
    },
    upsert: see,
    remove: () => see(undefined),
  }
}

function withoutSystemRoots(seen: WebhookConfiguration | undefined): WebhookConfiguration {
  const webhooks = seen?.webhooks ?? []
  return { webhooks: webhooks.filter(({ clientConfig: to }) => !to?.url || to.caBundle) }
}

function bundlesOf(configuration: WebhookConfiguration | undefined): string[] {
  return (configuration?.webhooks ?? []).map(webhook =>
    Buffer.from(webhook.clientConfig?.caBundle ?? '', 'base64').toString(),
  )
}

/**
 * What is applied: of each webhook its name (the key of the list) and our one field. The uid and
 * version keep the apply from making a configuration that is not there, or webhooks it has no more.
 */
function withBundle(configuration: WebhookConfiguration, name: string, bundle: string) {
  const { uid, resourceVersion } = configuration.metadata ?? {}
  const caBundle = Buffer.from(bundle).toString('base64')
  return {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name, uid, resourceVersion },
    webhooks: (configuration.webhooks ?? []).map(webhook => ({
      name: webhook.name,
      clientConfig: { caBundle },
    })),
  }
}

/**
 * Forced, since whoever emptied the field owns it then; nothing but our field can be lost by it.
 * false: the configuration is another by now, or gone.
 */
async function written(
  client: KubernetesClient,
  body: ReturnType<typeof withBundle>,
): Promise<boolean> {
  const { name } = body.metadata
  try {
    await client.admissionregistration.patchMutatingWebhookConfiguration(
      { name, body, fieldManager: FIELD_MANAGER, force: true },
      setHeaderOptions('Content-Type', PatchStrategy.ServerSideApply),
    )
    return true
  } catch (error) {
    const failure = asKubernetesError(`apply MutatingWebhookConfiguration ${name}`, error)
    if (failure.status === 409 || failure.status === 404) return false
    throw failure
  }
}

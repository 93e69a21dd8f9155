import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { type KubernetesClient, serverSideApply, unlessStatus } from '../kubernetes/client.ts'
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
  /** The configuration as it is; undefined: not read yet, or not there. */
  configuration(): WebhookConfiguration | undefined
  /** Whether the configuration was looked up, there or not. */
  known(): boolean
  /**
   * Whether every webhook of the configuration trusts this certificate (PEM); yes where there is no
   * configuration. With `system`, also a webhook with a URL and no CA: the API server then uses its
   * own roots, which only it knows.
   */
  trusts(cert: string, now: Date, roots?: 'system'): boolean
  /**
   * Writes `bundle` (PEM) to each webhook of `configuration` that holds another. Read the
   * configuration before you make the bundle: a write over another version is refused, so an old
   * bundle never replaces a newer one. It is not repeated, since `onChange` reports the new version.
   * Rejects with a KubernetesError.
   */
  put(configuration: WebhookConfiguration | undefined, bundle: string): Promise<void>
  /** Called when the configuration was read, changed or deleted. */
  onChange(listener: () => void): void
}

const PATH = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
const FIELD_MANAGER = 'pullpass-ca-bundle'

interface CaBundleDependencies {
  client: KubernetesClient
  logger: Logger
  metrics: Registry
}

/** Watches the one configuration of that `name` and writes its caBundle. */
export function createCaBundle(
  { client, logger, metrics }: CaBundleDependencies,
  { name }: { name: string },
): CaBundle {
  let seen: WebhookConfiguration | undefined
  const listeners: (() => void)[] = []
  const see = (configuration: WebhookConfiguration | undefined) => {
    seen = configuration
    for (const listener of listeners) listener()
  }
  const watch = createListWatch<WebhookConfiguration>(
    { client, handler: handlerOf(see), logger, metrics },
    {
      name: 'webhook-configuration',
      path: PATH,
      query: { fieldSelector: `metadata.name=${name}` },
    },
  )
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
 * The applied fields: of each webhook its name (the key of the list) and our one field. With uid and
 * version the apply cannot create a missing configuration, or webhooks that were removed.
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
 * With force, since a person who emptied the field owns it then; only our field can be lost by it.
 * False: the configuration is another by now, or gone.
 */
async function written(
  client: KubernetesClient,
  body: ReturnType<typeof withBundle>,
): Promise<boolean> {
  const { name } = body.metadata
  const applying = client.admissionregistration.patchMutatingWebhookConfiguration(
    { name, body, fieldManager: FIELD_MANAGER, force: true },
    serverSideApply(),
  )
  const action = `apply MutatingWebhookConfiguration ${name}`
  return (await unlessStatus([404, 409], action, applying)) !== undefined
}

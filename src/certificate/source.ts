import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { KubernetesClient } from '../kubernetes/client.ts'
import { type CaBundle, createCaBundle } from './ca-bundle.ts'
import { CertificateError } from './certificate.ts'
import type { CertificateClock } from './keep-ca.ts'
import { createMountedCertificate } from './mounted.ts'
import { createSelfManagedCertificate } from './self-managed.ts'
import type { CertificateSource } from './served-pair.ts'

/** The settings `certificate`. Seconds: the life of a serving certificate and of a CA. */
interface CertificateSettings {
  mode: 'self-managed' | 'files'
  /** Required for `files`. */
  directory?: string
  /** Names by which the API server calls the webhook. Empty (`files` only): no name is checked. */
  names: string[]
  secretName: string
  webhookConfiguration: string
  leafSeconds: number
  caSeconds: number
}

interface SourceDependencies {
  client: KubernetesClient
  clock: CertificateClock
  logger: Logger
  metrics: Registry
}

interface SourceSettings {
  certificate: CertificateSettings
  /** Of the CA's Secret. */
  namespace: string
  /** Unique for each replica. */
  identity: string
}

/**
 * The source that the settings choose. Throws a CertificateError where `files` has no directory.
 */
export function createCertificateSource(
  { client, clock, logger, metrics }: SourceDependencies,
  { certificate, namespace, identity }: SourceSettings,
): CertificateSource {
  const { mode, directory, names, secretName, webhookConfiguration } = certificate
  const { leafSeconds, caSeconds } = certificate
  if (mode === 'self-managed') {
    return createSelfManagedCertificate(
      { client, clock, logger, metrics },
      { namespace, secretName, webhookConfiguration, names, leafSeconds, caSeconds, identity },
    )
  }
  if (directory === undefined) throw new CertificateError('certificate.directory is not set')
  const mounted = createMountedCertificate({ clock, logger, metrics }, { directory, names })
  const bundle = createCaBundle({ client, logger, metrics }, { name: webhookConfiguration })
  return withConfiguration(mounted, bundle, { clock, name: webhookConfiguration })
}

/**
 * Mounted files do not show what the API server trusts. That is in the configuration, which
 * cert-manager's injector or the chart fills in, perhaps later.
 */
function withConfiguration(
  mounted: CertificateSource,
  bundle: CaBundle,
  { clock, name }: { clock: CertificateClock; name: string },
): CertificateSource {
  const isTrusted = () => bundle.trusts(mounted.current().cert, clock.now(), 'system')
  const isNotTrusted = `MutatingWebhookConfiguration ${name} does not trust the serving certificate`
  return {
    ...mounted,
    ready: () => mounted.ready() && isTrusted(),
    warnings: () => [
      ...mounted.warnings(),
      ...(mounted.ready() && !isTrusted() ? [isNotTrusted] : []),
    ],
    start: async () => {
      bundle.start()
      await mounted.start()
    },
    stop: async () => {
      await Promise.all([bundle.stop(), mounted.stop()])
    },
  }
}

import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { KubernetesClient } from '../kubernetes/client.ts'
import { createCaBundle } from './ca-bundle.ts'
import { CertificateError } from './certificate.ts'
import type { CertificateClock } from './keep-ca.ts'
import { createMountedCertificate } from './mounted.ts'
import { createSelfManagedCertificate } from './self-managed.ts'
import type { CertificateSource } from './served-pair.ts'

/** The settings `certificate`. Seconds are lives: of a serving certificate, and of a CA. */
interface CertificateSettings {
  mode: 'self-managed' | 'files'
  /** Needed for `files`. */
  directory?: string
  /** What the API server calls the webhook. May be empty for `files`: then no name is checked. */
  names: string[]
  secretName: string
  webhookConfiguration: string
  leafSeconds: number
  caSeconds: number
}

interface CertificateSourceOptions {
  settings: CertificateSettings
  client: KubernetesClient
  namespace: string
  identity: string
  clock: CertificateClock
  logger: Logger
  metrics?: Registry
}

/**
 * The source that the settings ask for. `namespace`: of the CA's Secret. `identity`: this replica,
 * unlike every other. Throws a CertificateError where there is no directory for `files`.
 */
export function createCertificateSource(options: CertificateSourceOptions): CertificateSource {
  const { settings, ...shared } = options
  if (settings.mode === 'self-managed') {
    return createSelfManagedCertificate({ ...settings, ...shared })
  }
  const { directory, names } = settings
  if (directory === undefined) throw new CertificateError('no directory of the certificate is set')
  return withConfiguration(createMountedCertificate({ ...shared, directory, names }), options)
}

/**
 * Mounted files say nothing of what the API server trusts: that is in the configuration, which
 * somebody else fills in (cert-manager's injector, the chart), perhaps later.
 */
function withConfiguration(
  mounted: CertificateSource,
  { settings, clock, ...shared }: CertificateSourceOptions,
): CertificateSource {
  const name = settings.webhookConfiguration
  const bundle = createCaBundle({ ...shared, name })
  const isTrusted = () => bundle.trusts(mounted.current().cert, clock.now(), 'system')
  const distrust = `MutatingWebhookConfiguration ${name} does not trust the serving certificate`
  return {
    ...mounted,
    ready: () => mounted.ready() && isTrusted(),
    warnings: () => [...mounted.warnings(), ...(mounted.ready() && !isTrusted() ? [distrust] : [])],
    start: async () => {
      bundle.start()
      await mounted.start()
    },
    stop: async () => {
      await Promise.all([bundle.stop(), mounted.stop()])
    },
  }
}

import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { KubernetesClient } from '../kubernetes/client.ts'
import type { CertificateClock } from './authority/keep-authority.ts'
import { createCaBundle } from './ca-bundle.ts'
import { CertificateError, type KeyPair } from './certificate.ts'
import { createMountedCertificate } from './mounted-certificate.ts'
import { createSelfManagedCertificate } from './self-managed-certificate.ts'

/** Where the serving certificate comes from: files, or our own CA. */
export interface CertificateSource {
  /** Key and certificate (PEM) to serve with. Throws before `start` has resolved. */
  current(): KeyPair
  /** Called when there is another pair than before. */
  onChange(listener: () => void): void
  /** Whether the API server takes what is served: names, dates, key and chain. */
  ready(): boolean
  /** Sentences for people: why it is not ready, or what is not as it should be. No secret in them. */
  notes(): string[]
  /** Resolves when there is a pair to serve with. */
  start(): Promise<void>
  stop(): Promise<void>
}

/** The settings `certificate`. Seconds are lives: of a serving certificate, and of a CA. */
export interface CertificateSettings {
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

export interface CertificateSourceOptions {
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
    notes: () => [...mounted.notes(), ...(mounted.ready() && !isTrusted() ? [distrust] : [])],
    start: async () => {
      bundle.start()
      await mounted.start()
    },
    stop: async () => {
      await Promise.all([bundle.stop(), mounted.stop()])
    },
  }
}

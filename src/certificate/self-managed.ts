import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { KubernetesClient } from '../kubernetes/client.ts'
import { type CertificateAuthority, trustedCertificates } from './ca.ts'
import { type CaBundle, createCaBundle } from './ca-bundle.ts'
import { flawOf, isTrusted, type KeyPair, parseCertificate, renewAt } from './certificate.ts'
import { type CertificateClock, createManagedCa, type ManagedCa } from './keep-ca.ts'
import type { CertificateSource } from './served-pair.ts'
import { createRepeater, createServedPair, type ServedPair } from './served-pair.ts'
import { signLeaf } from './sign.ts'

interface SelfManagedDependencies {
  client: KubernetesClient
  clock: CertificateClock
  logger: Logger
  metrics: Registry
}

interface SelfManagedSettings {
  /** Namespace and name of the CA's Secret. */
  namespace: string
  secretName: string
  /** MutatingWebhookConfiguration that gets the caBundle. */
  webhookConfiguration: string
  /** Names by which the API server calls the webhook: DNS names and IP addresses. */
  names: string[]
  leafSeconds: number
  caSeconds: number
  /** Unique for each replica. */
  identity: string
}

/**
 * A certificate signed by our own CA and held in memory only. Regularly, and when the configuration
 * changes: read the CA and take its step, renew the leaf where it is due, write the trusted CAs to
 * the configuration. `start` resolves with the first leaf, however long the API server is away, and
 * rejects when stopped before. Ready while the configuration trusts the leaf, or does not exist:
 * then the API server sends no pods.
 */
export function createSelfManagedCertificate(
  { client, clock, logger, metrics }: SelfManagedDependencies,
  settings: SelfManagedSettings,
): CertificateSource {
  const { namespace, secretName, identity, names, leafSeconds, caSeconds } = settings
  const name = settings.webhookConfiguration
  const served = createServedPair(metrics)
  const bundle = createCaBundle({ client, logger, metrics }, { name })
  const managedCa = createManagedCa(
    { client, clock, logger },
    { namespace, secretName, identity, leafSeconds, caSeconds },
  )
  const parts = { managedCa, served, bundle, clock, logger }
  const { everyMs, leastMs } = paceFor(leafSeconds)
  const repeater = createRepeater(
    { task: () => maintain(parts, { names, leafSeconds }), logger },
    { everyMs, leastMs, failed: 'cannot maintain the certificate' },
  )
  const first = Promise.withResolvers<void>()
  first.promise.catch(() => {}) // Handled also where it is stopped without being started.
  served.onChange(first.resolve)
  bundle.onChange(repeater.trigger)
  const ready = () => isReady(parts, names)
  return {
    current: served.current,
    onChange: served.onChange,
    ready,
    warnings: () => [repeater.problem(), problemOfBundle(bundle, name, ready())].filter(isText),
    async start() {
      bundle.start()
      repeater.start()
      await first.promise
    },
    async stop() {
      first.reject(new Error('stopped before there was a serving certificate'))
      await Promise.all([repeater.stop(), bundle.stop()])
    },
  }
}

function isText(text: string | undefined): text is string {
  return text !== undefined
}

interface Parts {
  managedCa: ManagedCa
  served: ServedPair
  bundle: CaBundle
  clock: CertificateClock
  logger: Logger
}

function isReady({ served, bundle, clock }: Parts, names: string[]): boolean {
  const pair = served.pair()
  if (!pair || flawOf(pair.cert, { names, now: clock.now() })) return false
  return bundle.trusts(pair.cert, clock.now())
}

async function maintain(
  { managedCa, served, bundle, clock, logger }: Parts,
  { names, leafSeconds: seconds }: { names: string[]; leafSeconds: number },
): Promise<void> {
  // Read before the CA: ca-bundle.ts says why.
  const configuration = bundle.configuration()
  const authority = await managedCa.keep(cert => bundle.trusts(cert, clock.now()))
  if (isDue(served.pair(), authority, clock.now())) {
    served.set(await signLeaf(authority.signing, { names, now: clock.now(), seconds }))
    const end = parseCertificate(served.current().cert).validToDate
    logger.info({ end }, 'certificate signed')
  }
  await bundle.put(configuration, trustedCertificates(authority))
}

function problemOfBundle(bundle: CaBundle, name: string, ready: boolean): string | undefined {
  const title = `MutatingWebhookConfiguration ${name}`
  if (!bundle.known()) return `${title} could not be read yet`
  if (!bundle.configuration()) return `${title} does not exist: no pod is sent here`
  return ready ? undefined : `${title} does not trust the serving certificate yet`
}

/** Renewed at 2/3 of its life, and at once where its CA is not trusted any more. */
function isDue(leaf: KeyPair | undefined, authority: CertificateAuthority, now: Date): boolean {
  if (!leaf) return true
  if (now >= renewAt(parseCertificate(leaf.cert))) return true
  return !isTrusted(leaf.cert, trustedCertificates(authority), now)
}

/** Every 5 s, and more often where the life of a certificate is only minutes. */
function paceFor(leafSeconds: number): { everyMs: number; leastMs: number } {
  const everyMs = Math.min(5000, leafSeconds * 20)
  return { everyMs, leastMs: Math.min(1000, everyMs) }
}

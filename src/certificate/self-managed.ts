import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { KubernetesClient } from '../kubernetes/client.ts'
import { type CertificateAuthority, trustedCertificates } from './ca.ts'
import { type CaBundle, createCaBundle } from './ca-bundle.ts'
import { flawOf, isTrusted, type KeyPair, parseCertificate, renewAt } from './certificate.ts'
import { type CertificateClock, createManagedCa } from './keep-ca.ts'
import type { CertificateSource } from './served-pair.ts'
import { createRepeater, createServedPair, type ServedPair } from './served-pair.ts'
import { signLeaf } from './sign.ts'

interface SelfManagedOptions {
  client: KubernetesClient
  /** Namespace and name of the CA's Secret. */
  namespace: string
  secretName: string
  /** MutatingWebhookConfiguration whose caBundle is kept. */
  webhookConfiguration: string
  /** What the API server calls the webhook: DNS names and IP addresses. */
  names: string[]
  leafSeconds: number
  caSeconds: number
  /** This replica, unlike every other. */
  identity: string
  clock: CertificateClock
  logger: Logger
  metrics?: Registry
}

/**
 * A certificate signed by our own CA and kept in memory only. Again and again, and whenever the
 * configuration changes: read the CA and take its step, renew the leaf where it is due, put the
 * trusted CAs into the configuration. `start` resolves with the first leaf, however long the API
 * server is away, and rejects when stopped before. Ready while the configuration trusts the leaf, or
 * there is no configuration, and so nobody who calls.
 */
export function createSelfManagedCertificate(options: SelfManagedOptions): CertificateSource {
  const { names, clock, logger, webhookConfiguration: name } = options
  const served = createServedPair(options.metrics)
  const bundle = createCaBundle({ ...options, name })
  const task = createTask(options, { served, bundle })
  const failed = 'certificate not looked after'
  const repeater = createRepeater({ task, ...paceFor(options.leafSeconds), logger, failed })
  const first = Promise.withResolvers<void>()
  // Whoever stops without having started does not wait for it.
  first.promise.catch(() => {})
  served.onChange(first.resolve)
  bundle.onChange(repeater.trigger)
  const isReady = () => {
    const pair = served.pair()
    if (!pair || flawOf(pair.cert, { names, now: clock.now() })) return false
    return bundle.trusts(pair.cert, clock.now())
  }
  return {
    current: served.current,
    onChange: served.onChange,
    ready: isReady,
    warnings: () =>
      [repeater.problem(), aboutBundle(bundle, name, isReady())].filter(note => note !== undefined),
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

function createTask(
  options: SelfManagedOptions,
  { served, bundle }: { served: ServedPair; bundle: CaBundle },
): () => Promise<void> {
  const { names, clock, logger, leafSeconds: seconds } = options
  const managedCa = createManagedCa(options)
  return async () => {
    // Taken before the CA is read: ca-bundle.ts says why.
    const configuration = bundle.configuration()
    const authority = await managedCa.keep(cert => bundle.trusts(cert, clock.now()))
    if (isDue(served.pair(), authority, clock.now())) {
      served.set(await signLeaf(authority.signing, { names, now: clock.now(), seconds }))
      const end = parseCertificate(served.current().cert).validToDate
      logger.info({ end }, 'certificate signed')
    }
    await bundle.put(configuration, trustedCertificates(authority))
  }
}

function aboutBundle(bundle: CaBundle, name: string, ready: boolean): string | undefined {
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

/** Every 5 s, and more often where a certificate lives for minutes only. */
function paceFor(leafSeconds: number): { everyMs: number; leastMs: number } {
  const everyMs = Math.min(5000, leafSeconds * 20)
  return { everyMs, leastMs: Math.min(1000, everyMs) }
}

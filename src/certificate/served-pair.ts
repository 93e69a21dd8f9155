import { createSecureContext } from 'node:tls'
import { Counter, Gauge, type Registry } from 'prom-client'
import { CertificateError, type KeyPair, parseCertificate } from './certificate.ts'
import type { CertificateSource } from './certificate-source.ts'

export interface ServedPair {
  /** undefined: none so far. */
  pair(): KeyPair | undefined
  current: CertificateSource['current']
  onChange: CertificateSource['onChange']
  /** Throws a CertificateError, and keeps the pair before, where OpenSSL or a listener refuses it. */
  set(pair: KeyPair): void
}

/**
 * Throws a CertificateError where OpenSSL refuses to serve with this pair: it has rules of its own,
 * e.g. for the length of a key. `title`: what the pair is called.
 */
export function checkServable({ key, cert }: KeyPair, title: string): void {
  try {
    createSecureContext({ key, cert })
  } catch (error) {
    throw new CertificateError(`OpenSSL refuses ${title}: ${reasonOf(error)}`)
  }
}

/** OpenSSL's own word, e.g. "ee key too small"; nothing that could hold a part of the key. */
function reasonOf(error: unknown): string {
  const { reason, code, name } = error as { reason?: string; code?: string; name?: string }
  return reason ?? code ?? name ?? 'unknown error'
}

/** The pair in use, those who want to know of another, and its end as a metric. */
export function createServedPair(metrics?: Registry): ServedPair {
  const listeners: (() => void)[] = []
  const meters = metrics && createMeters(metrics)
  let served: KeyPair | undefined
  return {
    pair: () => served,
    current() {
      if (!served) throw new Error('there is no serving certificate yet')
      return served
    },
    onChange: listener => void listeners.push(listener),
    set(pair) {
      checkServable(pair, 'the serving certificate')
      const before = served
      served = pair
      try {
        for (const listener of listeners) listener()
      } catch (error) {
        served = before
        throw new CertificateError(`the server refuses the certificate: ${reasonOf(error)}`)
      }
      meters?.end.set(parseCertificate(pair.cert).validToDate.getTime() / 1000)
      meters?.changes.inc()
    },
  }
}

function createMeters(metrics: Registry) {
  const registers = [metrics]
  return {
    end: new Gauge({
      name: 'pullpass_certificate_end_timestamp_seconds',
      help: 'When the serving certificate ends, in seconds since 1970',
      registers,
    }),
    changes: new Counter({
      name: 'pullpass_certificate_changes_total',
      help: 'Serving certificates taken into use, the first included',
      registers,
    }),
  }
}

import { Counter, Gauge, type Registry } from 'prom-client'
import { type KeyPair, parseCertificate } from './certificate.ts'
import type { CertificateSource } from './certificate-source.ts'

export interface ServedPair {
  /** undefined: none so far. */
  pair(): KeyPair | undefined
  current: CertificateSource['current']
  onChange: CertificateSource['onChange']
  set(pair: KeyPair): void
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
      served = pair
      meters?.end.set(parseCertificate(pair.cert).validToDate.getTime() / 1000)
      meters?.changes.inc()
      for (const listener of listeners) listener()
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

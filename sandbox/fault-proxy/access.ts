import type { KubeConfig } from '@kubernetes/client-node'
import { generate } from 'selfsigned'

/** A self-signed certificate for 127.0.0.1. */
export function ownCertificate() {
  return generate([{ name: 'commonName', value: 'fault proxy' }], {
    algorithm: 'sha256',
    keyType: 'ec',
    notBeforeDate: new Date(Date.now() - 600_000),
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] },
    ],
  })
}

/** The text of a kubeconfig like `base` whose clusters have this `url`. */
export function kubeconfigThrough(url: string, ca: string, base: KubeConfig): string {
  const config = JSON.parse(base.exportConfig())
  const reached = { server: url, 'certificate-authority-data': Buffer.from(ca).toString('base64') }
  for (const entry of config.clusters) entry.cluster = reached
  return JSON.stringify(config)
}

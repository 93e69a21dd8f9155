import { readFile } from 'node:fs/promises'
import tls from 'node:tls'
import { type Dispatcher, EnvHttpProxyAgent } from 'undici'
import { environmentFailure } from './failure.ts'

/**
 * The connections to the environment, through HTTPS_PROXY where NO_PROXY does not exclude it.
 * A private CA counts beside the roots that Node trusts anyway; its file is read at each request
 * (there are few), so a renewed CA needs no restart.
 */
export function createConnections(options: { caFile: string | undefined; timeoutMs: number }): {
  current(): Promise<Dispatcher>
  close(): Promise<void>
} {
  const { caFile, timeoutMs } = options
  let ca: string | undefined
  let agent: EnvHttpProxyAgent | undefined
  async function current(): Promise<Dispatcher> {
    const found = caFile === undefined ? undefined : await readCa(caFile)
    if (agent === undefined || found !== ca) {
      const former = agent
      ca = found
      agent = buildAgent(found, timeoutMs)
      // Ends by itself once its last request has ended.
      former?.close().catch(() => {})
    }
    return agent
  }
  return { current, close: async () => agent?.destroy() }
}

function buildAgent(ca: string | undefined, timeoutMs: number): EnvHttpProxyAgent {
  // Made once: parsing the system's roots for each connection costs tens of milliseconds.
  const roots = ca === undefined ? {} : { ca: [...tls.getCACertificates('default'), ca] }
  const trust = { secureContext: tls.createSecureContext(roots), allowH2: false }
  return new EnvHttpProxyAgent({
    connect: { ...trust, timeout: timeoutMs },
    requestTls: trust,
    proxyTls: trust,
    allowH2: false,
    connectTimeout: timeoutMs,
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
  })
}

async function readCa(file: string): Promise<string> {
  const pem = await readFile(file, 'utf8').catch(() => undefined)
  if (pem?.includes('-----BEGIN CERTIFICATE-----')) return pem
  throw environmentFailure('transient', 'ca_unusable', `cannot read a PEM certificate from ${file}`)
}

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { generate } from 'selfsigned'

const hourMs = 3_600_000
const yearMs = 365 * 24 * hourMs

export interface Certificates {
  /** The private CA of the environment's TLS, PEM. */
  ca: string
  /** The leaf for all host names. */
  tls: { key: string; cert: string }
  /** Signs the bearer tokens of the registry; its certificate is the registry's root bundle. */
  tokenSigner: { key: string; cert: string }
}

/** EC P-256 throughout: selfsigned refuses a leaf whose key type differs from its CA's. */
export async function createCertificates(hostNames: string[]): Promise<Certificates> {
  const [authority, signer] = await Promise.all([root('Dedicated CA'), root('Registry tokens')])
  const leaf = await generate([{ name: 'commonName', value: hostNames[0] ?? '' }], {
    ...validity(),
    ca: { key: authority.private, cert: authority.cert },
    extensions: [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      { name: 'subjectAltName', altNames: hostNames.map(value => ({ type: 2, value })) },
    ],
  })
  return {
    ca: authority.cert,
    tls: { key: leaf.private, cert: leaf.cert },
    tokenSigner: { key: signer.private, cert: signer.cert },
  }
}

/** Writes the certificates that programs read from files. */
export async function writeCertificates(folder: string, certificates: Certificates) {
  const caFile = join(folder, 'ca.crt')
  const rootCertificateFile = join(folder, 'registry-tokens.crt')
  await writeFile(caFile, certificates.ca)
  await writeFile(rootCertificateFile, certificates.tokenSigner.cert)
  return { caFile, rootCertificateFile }
}

function root(commonName: string) {
  return generate([{ name: 'commonName', value: commonName }], {
    ...validity(),
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      {
        name: 'keyUsage',
        keyCertSign: true,
        cRLSign: true,
        digitalSignature: true,
        critical: true,
      },
    ],
  })
}

/** By default, selfsigned signs with SHA-1 and starts validity at the present time. */
function validity() {
  return {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
    notBeforeDate: new Date(Date.now() - hourMs),
    notAfterDate: new Date(Date.now() + yearMs),
  } as const
}

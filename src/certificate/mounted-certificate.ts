import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import {
  CertificateError,
  checkPair,
  isTrusted,
  isValidAt,
  type KeyPair,
  parseCertificate,
  parseCertificates,
} from './certificate.ts'
import type { CertificateSource } from './certificate-source.ts'
import { createRepeater } from './repeat.ts'
import { createServedPair } from './served-pair.ts'

/**
 * A certificate that somebody else makes: the files `tls.crt`, `tls.key` and perhaps `ca.crt` of a
 * folder. They are read every `checkMs` and compared by content, since a mounted Secret changes by
 * a swapped symbolic link, which file events miss. A pair that cannot serve (half of a change, say)
 * is told once, and the one before kept. `start` rejects with a CertificateError where there is no
 * usable pair. Ready while the pair is valid and, where there is a ca.crt, signed by it.
 */
export function createMountedCertificate(options: {
  directory: string
  logger: Logger
  now: () => Date
  metrics?: Registry
  checkMs?: number
}): CertificateSource {
  const { directory, logger, now, checkMs = 5000 } = options
  const served = createServedPair(options.metrics)
  let loaded: Loaded | undefined

  async function look(): Promise<void> {
    const found = await readPair(directory)
    if (found.digest === loaded?.digest) return
    loaded = found
    served.set(found.pair)
    const end = parseCertificate(found.pair.cert).validToDate
    logger.info({ directory, end }, 'certificate loaded')
  }
  const times = { everyMs: checkMs, leastMs: checkMs }
  const repeater = createRepeater({ task: look, ...times, logger, failed: 'certificate kept' })
  const unfit = () => (loaded ? whyUnfit(loaded, now()) : 'there is no serving certificate yet')
  return {
    current: served.current,
    onChange: served.onChange,
    ready: () => unfit() === undefined,
    notes: () => [unfit(), repeater.problem()].filter(note => note !== undefined),
    async start() {
      await look()
      repeater.start()
    },
    stop: repeater.stop,
  }
}

interface Loaded {
  pair: KeyPair
  /** ca.crt; absent where there is none. */
  ca: string | undefined
  /** Of all three files. */
  digest: string
}

async function readPair(directory: string): Promise<Loaded> {
  const [cert, key, ca] = await Promise.all([
    readText(join(directory, 'tls.crt')),
    readText(join(directory, 'tls.key')),
    readText(join(directory, 'ca.crt')),
  ])
  if (cert === undefined) throw new CertificateError(`there is no tls.crt in ${directory}`)
  if (key === undefined) throw new CertificateError(`there is no tls.key in ${directory}`)
  const pair = { key, cert }
  checkPair(pair)
  parseCertificates(ca ?? '')
  const digest = createHash('sha256')
    .update(JSON.stringify([cert, key, ca]))
    .digest('hex')
  return { pair, ca, digest }
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw new CertificateError(`cannot read ${file}: ${code}`)
  }
}

function whyUnfit({ pair, ca }: Loaded, now: Date): string | undefined {
  if (!isValidAt(parseCertificate(pair.cert), now))
    return 'the serving certificate is not valid now'
  if (ca && !isTrusted(pair.cert, ca, now)) return 'the serving certificate is not signed by ca.crt'
  return undefined
}

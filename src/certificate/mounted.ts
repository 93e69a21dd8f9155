import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import {
  CertificateError,
  checkPair,
  flawOf,
  isTrusted,
  type KeyPair,
  parseCertificate,
  parseCertificates,
} from './certificate.ts'
import type { CertificateSource } from './served-pair.ts'
import { checkServable, createRepeater, createServedPair } from './served-pair.ts'

interface MountedDependencies {
  clock: { now(): Date }
  logger: Logger
  metrics: Registry
}

interface MountedSettings {
  directory: string
  /** Names by which the API server calls the webhook. Empty: no name is checked. */
  names: string[]
  checkMs?: number
}

/**
 * A certificate from elsewhere: the files `tls.crt`, `tls.key` and optionally `ca.crt` of a folder.
 * They are read every `checkMs` and compared by content: the kubelet changes a mounted Secret by
 * swapping a symbolic link, which file events miss.
 *
 * | files now                            | at the start             | later, when the pair in use is |       |
 * |                                      |                          | good                 | not good       |
 * |--------------------------------------|--------------------------|----------------------|----------------|
 * | no pair, or OpenSSL refuses it       | `start` rejects          | kept, reported       | kept, reported |
 * | the API server would refuse the pair | served, not ready        | kept, reported       | served, not ready |
 * | a good pair                          | served, ready            | served, ready        | served, ready  |
 */
export function createMountedCertificate(
  { clock, logger, metrics }: MountedDependencies,
  { directory, names, checkMs = 5000 }: MountedSettings,
): CertificateSource {
  const served = createServedPair(metrics)
  let loaded: Loaded | undefined

  const flawIn = (pair: Loaded) => whyUnfit(pair, { directory, names, now: clock.now() })
  async function reload(): Promise<void> {
    const found = await readPair(directory)
    if (found.digest === loaded?.digest) return
    const flaw = flawIn(found)
    if (flaw && loaded && !flawIn(loaded)) throw new CertificateError(flaw)
    served.set(found.pair)
    loaded = found
    const end = parseCertificate(found.pair.cert).validToDate
    logger.info({ directory, end }, 'certificate loaded')
  }
  const repeater = createRepeater(
    { task: reload, logger },
    { everyMs: checkMs, leastMs: checkMs, failed: 'cannot use the new certificate' },
  )
  const unfit = () => (loaded ? flawIn(loaded) : 'there is no serving certificate yet')
  return {
    current: served.current,
    onChange: served.onChange,
    ready: () => unfit() === undefined,
    warnings: () => [unfit(), repeater.problem()].filter(warning => warning !== undefined),
    async start() {
      await reload()
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
  inFiles(`tls.crt and tls.key in ${directory}`, () => checkPair(pair))
  inFiles(`ca.crt in ${directory}`, () => parseCertificates(ca ?? ''))
  checkServable(pair, `tls.crt and tls.key in ${directory}`)
  const digest = createHash('sha256')
    .update(JSON.stringify([cert, key, ca]))
    .digest('hex')
  return { pair, ca, digest }
}

/** Names the files in the error. */
function inFiles(files: string, check: () => void): void {
  try {
    check()
  } catch (error) {
    throw new CertificateError(`${files}: ${(error as Error).message}`)
  }
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

function whyUnfit(
  { pair, ca }: Loaded,
  { directory, ...asked }: { directory: string; names: string[]; now: Date },
): string | undefined {
  const title = `the serving certificate (tls.crt in ${directory})`
  const flaw = flawOf(pair.cert, asked)
  if (flaw !== undefined) return `${title} ${flaw}`
  if (ca && !isTrusted(pair.cert, ca, asked.now)) return `${title} is not signed by ca.crt`
  return undefined
}

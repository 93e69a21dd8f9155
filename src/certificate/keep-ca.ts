import type { V1Secret } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { type KubernetesClient, serverSideApply, unlessStatus } from '../kubernetes/client.ts'
import {
  begun,
  type CaMoment,
  type CaStep,
  type CertificateAuthority,
  caSecret,
  planCa,
  readCa,
  readSigning,
  signingWithNext,
  withNext,
  withoutOlder,
} from './ca.ts'
import { CertificateError, isValidAt, type KeyPair, parseCertificate } from './certificate.ts'
import { makeCa } from './sign.ts'

export interface ManagedCa {
  /**
   * Reads the CA, creates it where there is none, and takes the step that is due. `trusts`: whether
   * the API server trusts a certificate (PEM). Rejects with a KubernetesError, or with a
   * CertificateError where no CA can sign now.
   */
  keep(trusts: CaMoment['trusts']): Promise<CertificateAuthority>
}

interface CaDependencies {
  client: KubernetesClient
  clock: CertificateClock
  logger: Logger
}

interface SecretOfCa {
  namespace: string
  secretName: string
  /** Unique for each replica. */
  identity: string
}

interface CaSettings extends SecretOfCa {
  leafSeconds: number
  caSeconds: number
}

interface CaOptions {
  clock: CertificateClock
  logger: Logger
  settings: CaSettings
}

/** The part of the API server's clock that certificates need. */
export interface CertificateClock {
  now(): Date
  local(): Date
  isMeasured(): boolean
}

/** Time for another replica, which may know the CA, to restore a damaged Secret. */
const DAMAGED_MS = 60_000

/**
 * Keeps the CA in its Secret, together with the other replicas and without a leader: the first one
 * creates it or takes the step, the others get a conflict and read the result.
 *
 * | Secret   | this replica remembers the CA | action                                              |
 * |----------|-------------------------------|-----------------------------------------------------|
 * | deleted  | yes                           | restore                                             |
 * | none     | no                            | begin                                               |
 * | damaged  | yes                           | restore, over the version that was read             |
 * | damaged  | no, for less than a minute    | wait; reported                                      |
 * | damaged  | no, for a minute              | begin, with the CA that signs where that is readable |
 *
 * It is restored since serving certificates of that CA are in use; to begin with another CA at once,
 * delete it while no replica runs. Nothing begins before the API server's clock is measured.
 */
export function createManagedCa(
  { client, clock, logger }: CaDependencies,
  settings: CaSettings,
): ManagedCa {
  const { namespace, secretName, identity, leafSeconds } = settings
  const options: CaOptions = { clock, logger, settings }
  const store = createCaStore({ client }, { namespace, secretName, identity })
  let remembered: CertificateAuthority | undefined
  let damagedSince: Date | undefined
  async function repair(damaged: DamagedAuthority): Promise<StoredCa> {
    if (clock.isMeasured()) damagedSince ??= clock.now()
    const waitedMs = damagedSince ? clock.now().getTime() - damagedSince.getTime() : 0
    if (!remembered && waitedMs < DAMAGED_MS) throw damaged.damage
    return replaceDamaged(store, options, { damaged, remembered })
  }
  return {
    async keep(trusts) {
      const found = (await store.read()) ?? (await create(store, options, remembered))
      const stored = found.authority ? found : await repair(found)
      damagedSince = undefined
      const times = { now: clock.now(), local: clock.local(), isMeasured: clock.isMeasured() }
      const step = planCa(stored.authority, { ...times, leafSeconds, trusts })
      const authority = await takeStep(store, options, { stored, step })
      assertUsable(authority, options)
      remembered = authority
      return authority
    },
  }
}

async function create(
  store: CaStore,
  options: CaOptions,
  remembered: CertificateAuthority | undefined,
): Promise<StoredCa> {
  const authority = remembered ?? (await begin(options))
  if (await store.create(authority)) {
    const step = remembered ? 'restore' : 'begin'
    options.logger.info({ secret: options.settings.secretName, step }, 'CA created')
  }
  return readAgain(store)
}

async function replaceDamaged(
  store: CaStore,
  options: CaOptions,
  {
    damaged,
    remembered,
  }: { damaged: DamagedAuthority; remembered: CertificateAuthority | undefined },
): Promise<StoredCa> {
  const { clock, logger, settings } = options
  const secret = settings.secretName
  const { signing, damage } = damaged
  const authority = remembered ?? (signing ? begun(signing, clock.now()) : await begin(options))
  if (await store.replace(damaged, authority)) {
    const step = remembered ? 'restore' : 'begin'
    logger.warn({ secret, step, problem: damage.message }, 'damaged CA replaced')
  }
  return readAgain(store)
}

async function begin({ clock, settings }: CaOptions): Promise<CertificateAuthority> {
  if (!clock.isMeasured()) {
    throw new CertificateError("cannot create a CA before the API server's clock is known")
  }
  return begun(await makeCa(clock.now(), settings.caSeconds), clock.now())
}

async function takeStep(
  store: CaStore,
  options: CaOptions,
  { stored, step }: { stored: StoredCa; step: CaStep },
): Promise<CertificateAuthority> {
  if (step === 'keep') return stored.authority
  const changed = await afterStep(step, stored.authority, options)
  if (!(await store.replace(stored, changed))) return (await readAgain(store)).authority
  options.logger.info({ secret: options.settings.secretName, step }, 'CA changed')
  return changed
}

async function afterStep(
  step: Exclude<CaStep, 'keep'>,
  authority: CertificateAuthority,
  options: CaOptions,
): Promise<CertificateAuthority> {
  const now = options.clock.now()
  if (step === 'sign-with-next') return signingWithNext(authority, now)
  if (step === 'drop-older') return withoutOlder(authority, now)
  if (step === 'correct-since') return { ...authority, since: now }
  if (step === 'begin') return begin(options)
  return withNext(authority, await makeCa(now, options.settings.caSeconds), now)
}

/** Another replica may replace the CA soon; until then leaf and caBundle stay as they are. */
function assertUsable({ signing }: CertificateAuthority, { clock, settings }: CaOptions): void {
  const certificate = parseCertificate(signing.cert)
  const now = clock.now()
  if (isValidAt(certificate, now)) return
  const title = `the CA in Secret ${settings.namespace}/${settings.secretName}`
  const hasExpired = certificate.validToDate <= now
  throw new CertificateError(
    hasExpired
      ? `${title} expired at ${certificate.validToDate.toISOString()}`
      : `${title} is not valid before ${certificate.validFromDate.toISOString()}`,
  )
}

async function readAgain(store: CaStore): Promise<StoredCa> {
  const stored = await store.read()
  if (!stored) throw new CertificateError('cannot read the CA: its Secret was deleted just now')
  if (!stored.authority) throw stored.damage
  return stored
}

/** A CA, and the version of the Secret that it was read from. */
type StoredCa = SecretVersion & { authority: CertificateAuthority }

/** A Secret that holds no authority. */
type DamagedAuthority = SecretVersion & {
  authority: undefined
  damage: CertificateError
  /** The CA that signs, where that part can be read. */
  signing: KeyPair | undefined
}

interface SecretVersion {
  uid: string | undefined
  resourceVersion: string | undefined
  type: string | undefined
}

/** Reads and writes the Secret of the authority. Every call rejects with a KubernetesError. */
interface CaStore {
  /** Undefined: there is none. */
  read(): Promise<StoredCa | DamagedAuthority | undefined>
  /** False: there is one by now, and it stays unchanged. */
  create(authority: CertificateAuthority): Promise<boolean>
  /** False: it is another version than `stored` by now, and stays unchanged. */
  replace(stored: SecretVersion, authority: CertificateAuthority): Promise<boolean>
}

/**
 * Created by server-side apply, since a role cannot limit a POST to one name
 * (kubernetes/kubernetes#132213). Each replica (`identity`) applies with its own field manager and
 * without force: where another replica has created the Secret, that is a 409.
 */
function createCaStore(
  { client }: { client: KubernetesClient },
  { namespace, secretName: name, identity }: SecretOfCa,
): CaStore {
  const title = `Secret ${namespace}/${name}`
  const fieldManager = `pullpass-ca-${identity}`.slice(0, 128)
  return {
    async read() {
      const reading = client.core.readNamespacedSecret({ namespace, name })
      const secret = await unlessStatus([404], `read ${title}`, reading)
      if (!secret) return undefined
      const { uid, resourceVersion } = secret.metadata ?? {}
      return { ...authorityIn(secret, title), uid, resourceVersion, type: secret.type }
    },
    create(authority) {
      const body = caSecret(authority, { namespace, name })
      const applying = client.core.patchNamespacedSecret(
        { namespace, name, body, fieldManager, force: false },
        serverSideApply(),
      )
      return wasFirst(`create ${title}`, applying)
    },
    replace({ uid, resourceVersion, type }, authority) {
      const version = { ...(uid && { uid }), ...(resourceVersion && { resourceVersion }) }
      const body = caSecret(authority, { namespace, name, ...version }, type)
      const replacing = client.core.replaceNamespacedSecret({ namespace, name, body })
      return wasFirst(`update ${title}`, replacing)
    },
  }
}

function authorityIn(secret: V1Secret, title: string) {
  try {
    return { authority: readCa(secret) }
  } catch (error) {
    const damage = new CertificateError(`${title} holds no CA: ${(error as Error).message}`)
    return { authority: undefined, damage, signing: readSigning(secret) }
  }
}

async function wasFirst(action: string, writing: Promise<V1Secret>): Promise<boolean> {
  return (await unlessStatus([409], action, writing)) !== undefined
}

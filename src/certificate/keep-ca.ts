import { PatchStrategy, setHeaderOptions, type V1Secret } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { asKubernetesError, type KubernetesClient } from '../kubernetes/client.ts'
import type { ServerClock } from '../kubernetes/server-clock.ts'
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

interface ManagedCa {
  /**
   * Reads the authority, makes it where there is none, and takes the step that is due. `trusts`:
   * whether the API server trusts a certificate (PEM). Rejects with a KubernetesError, or with a
   * CertificateError where there is no CA that can sign now.
   */
  keep(trusts: CaMoment['trusts']): Promise<CertificateAuthority>
}

export interface CaOptions {
  client: Pick<KubernetesClient, 'core'>
  /** Where the Secret is, and its name. */
  namespace: string
  secretName: string
  /** This replica, unlike every other. */
  identity: string
  leafSeconds: number
  caSeconds: number
  clock: CertificateClock
  logger: Logger
}

export type CertificateClock = Pick<ServerClock, 'now' | 'local' | 'isMeasured'>

/** Time for another replica, which may know the CA, to put a damaged Secret back. */
const DAMAGED_MS = 60_000

/**
 * Keeps the CA in its Secret, together with the other replicas and without a leader: whoever is
 * first makes it or takes the step, the others find that they are late and read what is there.
 *
 * | Secret   | this replica remembers the CA | action                                              |
 * |----------|-------------------------------|-----------------------------------------------------|
 * | deleted  | yes                           | put back                                            |
 * | none     | no                            | begin                                               |
 * | damaged  | yes                           | put back, over the version that was read            |
 * | damaged  | no, for less than a minute    | wait; reported                                      |
 * | damaged  | no, for a minute              | begin, with the CA that signs where that is readable |
 *
 * It is put back since serving certificates of that CA are in use; to begin with another CA at once,
 * delete it while no replica runs. Nothing begins before the API server's clock is measured.
 */
export function createManagedCa(options: CaOptions): ManagedCa {
  const { leafSeconds, clock } = options
  const store = createCaStore(options)
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
    const step = remembered ? 'put-back' : 'begin'
    options.logger.info({ secret: options.secretName, step }, 'CA made')
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
  const { clock, logger, secretName: secret } = options
  const { signing, damage } = damaged
  const authority = remembered ?? (signing ? begun(signing, clock.now()) : await begin(options))
  if (await store.replace(damaged, authority)) {
    const step = remembered ? 'put-back' : 'begin'
    logger.warn({ secret, step, problem: damage.message }, 'damaged CA replaced')
  }
  return readAgain(store)
}

async function begin({ clock, caSeconds }: CaOptions): Promise<CertificateAuthority> {
  if (!clock.isMeasured()) {
    throw new CertificateError("no CA is made before the API server's clock is known")
  }
  return begun(await makeCa(clock.now(), caSeconds), clock.now())
}

async function takeStep(
  store: CaStore,
  options: CaOptions,
  { stored, step }: { stored: StoredCa; step: CaStep },
): Promise<CertificateAuthority> {
  if (step === 'keep') return stored.authority
  const changed = await afterStep(step, stored.authority, options)
  if (!(await store.replace(stored, changed))) return (await readAgain(store)).authority
  options.logger.info({ secret: options.secretName, step }, 'CA changed')
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
  return withNext(authority, await makeCa(now, options.caSeconds), now)
}

/** Another replica may replace it soon; until then neither leaf nor caBundle follow it. */
function assertUsable({ signing }: CertificateAuthority, { clock, ...options }: CaOptions): void {
  const certificate = parseCertificate(signing.cert)
  const now = clock.now()
  if (isValidAt(certificate, now)) return
  const title = `the CA in Secret ${options.namespace}/${options.secretName}`
  const isEnded = certificate.validToDate <= now
  throw new CertificateError(
    isEnded
      ? `${title} has ended at ${certificate.validToDate.toISOString()}`
      : `${title} is not valid before ${certificate.validFromDate.toISOString()}`,
  )
}

async function readAgain(store: CaStore): Promise<StoredCa> {
  const stored = await store.read()
  if (!stored) throw new CertificateError('the Secret of the CA was deleted as it was made')
  if (!stored.authority) throw stored.damage
  return stored
}

/** What was read, in exactly this version of the Secret. */
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
  /** undefined: there is none. */
  read(): Promise<StoredCa | DamagedAuthority | undefined>
  /** false: there is one by now, and it was left alone. */
  create(authority: CertificateAuthority): Promise<boolean>
  /** false: it is not any more what was `stored`, and was left alone. */
  replace(stored: SecretVersion, authority: CertificateAuthority): Promise<boolean>
}

/**
 * Made by server-side apply, since a role cannot limit a POST to one name
 * (kubernetes/kubernetes#132213). Each replica (`identity`) applies as a field manager of its own
 * and without force: over what another has made, that is a 409.
 */
function createCaStore(options: {
  client: Pick<KubernetesClient, 'core'>
  namespace: string
  secretName: string
  identity: string
}): CaStore {
  const { client, namespace, secretName: name, identity } = options
  const title = `Secret ${namespace}/${name}`
  const fieldManager = `pullpass-ca-${identity}`.slice(0, 128)
  return {
    async read() {
      const secret = await client.core.readNamespacedSecret({ namespace, name }).catch(error => {
        const failure = asKubernetesError(`read ${title}`, error)
        if (failure.status === 404) return undefined
        throw failure
      })
      if (!secret) return undefined
      const { uid, resourceVersion } = secret.metadata ?? {}
      return { ...authorityIn(secret, title), uid, resourceVersion, type: secret.type }
    },
    create(authority) {
      const body = caSecret(authority, { namespace, name })
      const applied = client.core.patchNamespacedSecret(
        { namespace, name, body, fieldManager, force: false },
        setHeaderOptions('Content-Type', PatchStrategy.ServerSideApply),
      )
      return wasFirst(`create ${title}`, applied)
    },
    replace({ uid, resourceVersion, type }, authority) {
      const version = { ...(uid && { uid }), ...(resourceVersion && { resourceVersion }) }
      const body = caSecret(authority, { namespace, name, ...version }, type)
      const replaced = client.core.replaceNamespacedSecret({ namespace, name, body })
      return wasFirst(`update ${title}`, replaced)
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

async function wasFirst(action: string, written: Promise<unknown>): Promise<boolean> {
  try {
    await written
    return true
  } catch (error) {
    const failure = asKubernetesError(action, error)
    if (failure.status === 409) return false
    throw failure
  }
}

import type { Logger } from 'pino'
import type { KubernetesClient } from '../../kubernetes/client.ts'
import type { ServerClock } from '../../kubernetes/server-clock.ts'
import { CertificateError, isValidAt, parseCertificate } from '../certificate.ts'
import {
  type Authority,
  type AuthorityMoment,
  type AuthorityStep,
  begun,
  planAuthority,
  signingWithNext,
  withNext,
  withoutOlder,
} from './authority.ts'
import {
  type AuthorityStore,
  createAuthorityStore,
  type DamagedAuthority,
  type StoredAuthority,
} from './authority-store.ts'
import { makeAuthority } from './sign-certificate.ts'

export interface AuthorityKeeper {
  /**
   * Reads the authority, makes it where there is none, and takes the step that is due. `trusts`:
   * whether the API server trusts a certificate (PEM). Rejects with a KubernetesError, or with a
   * CertificateError where there is no CA that can sign now.
   */
  keep(trusts: AuthorityMoment['trusts']): Promise<Authority>
}

export interface AuthorityOptions {
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
export function createAuthorityKeeper(options: AuthorityOptions): AuthorityKeeper {
  const { leafSeconds, clock } = options
  const store = createAuthorityStore(options)
  let remembered: Authority | undefined
  let damagedSince: Date | undefined
  async function repair(damaged: DamagedAuthority): Promise<StoredAuthority> {
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
      const step = planAuthority(stored.authority, { ...times, leafSeconds, trusts })
      const authority = await takeStep(store, options, { stored, step })
      assertUsable(authority, options)
      remembered = authority
      return authority
    },
  }
}

async function create(
  store: AuthorityStore,
  options: AuthorityOptions,
  remembered: Authority | undefined,
): Promise<StoredAuthority> {
  const authority = remembered ?? (await begin(options))
  if (await store.create(authority)) {
    const step = remembered ? 'put-back' : 'begin'
    options.logger.info({ secret: options.secretName, step }, 'CA made')
  }
  return readAgain(store)
}

async function replaceDamaged(
  store: AuthorityStore,
  options: AuthorityOptions,
  { damaged, remembered }: { damaged: DamagedAuthority; remembered: Authority | undefined },
): Promise<StoredAuthority> {
  const { clock, logger, secretName: secret } = options
  const { signing, damage } = damaged
  const authority = remembered ?? (signing ? begun(signing, clock.now()) : await begin(options))
  if (await store.replace(damaged, authority)) {
    const step = remembered ? 'put-back' : 'begin'
    logger.warn({ secret, step, problem: damage.message }, 'damaged CA replaced')
  }
  return readAgain(store)
}

async function begin({ clock, caSeconds }: AuthorityOptions): Promise<Authority> {
  if (!clock.isMeasured()) {
    throw new CertificateError("no CA is made before the API server's clock is known")
  }
  return begun(await makeAuthority(clock.now(), caSeconds), clock.now())
}

async function takeStep(
  store: AuthorityStore,
  options: AuthorityOptions,
  { stored, step }: { stored: StoredAuthority; step: AuthorityStep },
): Promise<Authority> {
  if (step === 'keep') return stored.authority
  const changed = await afterStep(step, stored.authority, options)
  if (!(await store.replace(stored, changed))) return (await readAgain(store)).authority
  options.logger.info({ secret: options.secretName, step }, 'CA changed')
  return changed
}

async function afterStep(
  step: Exclude<AuthorityStep, 'keep'>,
  authority: Authority,
  options: AuthorityOptions,
): Promise<Authority> {
  const now = options.clock.now()
  if (step === 'sign-with-next') return signingWithNext(authority, now)
  if (step === 'drop-older') return withoutOlder(authority, now)
  if (step === 'correct-since') return { ...authority, since: now }
  if (step === 'begin') return begin(options)
  return withNext(authority, await makeAuthority(now, options.caSeconds), now)
}

/** Another replica may replace it soon; until then neither leaf nor caBundle follow it. */
function assertUsable({ signing }: Authority, { clock, ...options }: AuthorityOptions): void {
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

async function readAgain(store: AuthorityStore): Promise<StoredAuthority> {
  const stored = await store.read()
  if (!stored) throw new CertificateError('the Secret of the CA was deleted as it was made')
  if (!stored.authority) throw stored.damage
  return stored
}
